# A stand-in for Docker's python:3.11-slim: Debian 12 with a CPython of the machine that builds it.
# hadolint ignore=DL3007
FROM tritonic-stand-in-debian:latest
COPY prefix /usr/local
COPY certificates/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY pip.conf /etc/pip.conf
COPY wheels /opt/stand-in-wheels
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
# Scripts of the copied folder name its old place.
RUN ldconfig && rm -f /usr/local/bin/pip* && \
    ln -sf python3.11 /usr/local/bin/python3 && ln -sf python3.11 /usr/local/bin/python && \
    python3 -m ensurepip --default-pip && python3 -c 'import bz2, ctypes, lzma, sqlite3, ssl, uuid, zlib'
CMD ["python3"]
