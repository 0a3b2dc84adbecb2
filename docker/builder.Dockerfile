# The builders: weights in, engines and config.pbtxt out. Runs once and ends.
FROM python:3.11-slim
WORKDIR /src
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin tritonic && \
    install --directory --owner=tritonic /models /scratch /secret
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY gateway gateway
COPY builders builders
COPY backends backends
COPY tritonic tritonic
RUN pip install --no-cache-dir --disable-pip-version-check '.[build]' -c constraints.txt
# A new volume gets the owner of the folder that it is mounted on.
VOLUME /models /secret
USER tritonic
WORKDIR /scratch
ENTRYPOINT ["tritonic"]
# A folder inside the mount: a model is staged next to the repository and moved into it by one rename.
CMD ["build", "chat", "--repository", "/models/repository"]
