# A stand-in for Docker's postgres: Debian's Postgres 15, with the user, the folders and the variables of that image.
# hadolint ignore=DL3007
FROM tritonic-stand-in-debian:latest
# hadolint ignore=DL3008
RUN groupadd --system --gid 999 postgres && useradd --system --gid 999 --uid 999 --home-dir /var/lib/postgresql postgres && \
    apt-get update -qq && apt-get install -qq -y --no-install-recommends postgresql-15 && rm -rf /var/lib/apt/lists/* && \
    install --directory --owner=999 --group=999 --mode=1777 /var/lib/postgresql/data /var/run/postgresql
COPY postgres-start /usr/local/bin/
ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin \
    PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
ENTRYPOINT ["postgres-start"]
