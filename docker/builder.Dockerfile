# The builders: weights in, engines and config.pbtxt out. Runs once and ends.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
FROM ${PYTHON_IMAGE}
ARG PIP_LICENSES=5.5.5
WORKDIR /src
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin tritonic && \
    install --directory --owner=10001 --group=10001 /models /scratch /secret
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY gateway gateway
COPY builders builders
COPY backends backends
COPY tritonic tritonic
RUN pip install --no-cache-dir --disable-pip-version-check '.[build]' -c constraints.txt
COPY docker/inventory.py docker/
RUN pip install --no-cache-dir --disable-pip-version-check --target /opt/licences "pip-licenses==${PIP_LICENSES}" && \
    python docker/inventory.py /opt/licences /usr/share/tritonic && \
    rm -r /opt/licences
# A new volume gets the owner of the folder that it is mounted on.
VOLUME /models /secret
# A number: Kubernetes' runAsNonRoot cannot tell whether a name is root.
USER 10001:10001
WORKDIR /scratch
ENTRYPOINT ["tritonic"]
# A folder inside the mount: a model is staged next to the repository and moved into it by one rename.
CMD ["build", "chat", "--repository", "/models/repository"]
