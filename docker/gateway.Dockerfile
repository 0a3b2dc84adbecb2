# The gateway alone: base dependencies, no torch, no tokenizer, no weights, and no root.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
FROM ${PYTHON_IMAGE} AS build
ARG PIP_LICENSES=5.5.5
# `audio` decodes recordings and encodes speech; its wheel holds GPL libraries (docs/decisions/0009-licences-of-images.md).
# docker-compose.yml adds it to the image that it builds for this machine.
ARG EXTRAS=tracing
WORKDIR /src
RUN python -m venv /opt/tritonic && \
    pip install --no-cache-dir --disable-pip-version-check --target /opt/licences "pip-licenses==${PIP_LICENSES}"
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY gateway gateway
COPY builders builders
COPY backends backends
COPY tritonic tritonic
RUN /opt/tritonic/bin/pip install --no-cache-dir --disable-pip-version-check ".[${EXTRAS}]" -c constraints.txt
COPY docker/inventory.py docker/
RUN /opt/tritonic/bin/python docker/inventory.py /opt/licences /usr/share/tritonic

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin tritonic && \
    install --directory --owner=10001 --group=10001 --mode=750 /state /files
COPY --from=build /opt/tritonic /opt/tritonic
COPY --from=build /usr/share/tritonic /usr/share/tritonic
COPY docker/gateway-health /usr/local/bin/
# Python's own modules come without byte code, and a read-only container would compile them at each start.
RUN python -m compileall -q -x '/(ensurepip|idlelib|lib2to3|site-packages|test|tests|tkinter|turtledemo)/' \
    "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
ENV PATH=/opt/tritonic/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TRITONIC_HOST=0.0.0.0 \
    TRITONIC_STATE=/state \
    TRITONIC_PORT=1088
# A number: Kubernetes' runAsNonRoot cannot tell whether a name is root.
USER 10001:10001
# A new volume gets the owner of the folder that it is mounted on.
VOLUME /state
EXPOSE 1088
HEALTHCHECK --interval=5s --timeout=3s --retries=3 --start-period=20s CMD ["gateway-health"]
ENTRYPOINT ["tritonic"]
CMD ["serve"]
