# A stand-in for prom/prometheus: Debian's Prometheus 2.42, with the user and the folder of that image.
# hadolint ignore=DL3007
FROM tritonic-stand-in-debian:latest
# hadolint ignore=DL3008
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends prometheus wget && rm -rf /var/lib/apt/lists/* && \
    install --directory --owner=65534 --group=65534 /prometheus
WORKDIR /prometheus
VOLUME /prometheus
USER 65534
ENTRYPOINT ["/usr/bin/prometheus"]
