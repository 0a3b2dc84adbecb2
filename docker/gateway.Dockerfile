# The gateway alone: base dependencies, no torch, no tokenizer, no weights, and no root.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
FROM ${PYTHON_IMAGE} AS build
ARG PIP_LICENSES=5.5.5
# `audio` decodes audio in requests; its wheel holds GPL libraries (docs/decisions/0009-licences-of-images.md).
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
HEALTHCHECK --interval=5s --timeout=3s --retries=3 --start-period=20s CMD \
    ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['TRITONIC_PORT'] + '/health/live', timeout=2)"]
ENTRYPOINT ["tritonic"]
CMD ["serve"]
