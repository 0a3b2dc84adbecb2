# The gateway alone: base dependencies, no torch, no tokenizer, no weights, and no root.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/tritonic
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY gateway gateway
COPY builders builders
COPY backends backends
COPY tritonic tritonic
RUN /opt/tritonic/bin/pip install --no-cache-dir --disable-pip-version-check ".[tracing]" -c constraints.txt

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin tritonic && install -d -o tritonic -m 750 /state
COPY --from=build /opt/tritonic /opt/tritonic
ENV PATH=/opt/tritonic/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TRITONIC_HOST=0.0.0.0 \
    TRITONIC_STATE=/state \
    TRITONIC_PORT=1088
USER tritonic
VOLUME /state
EXPOSE 1088
ENTRYPOINT ["tritonic"]
CMD ["serve"]
