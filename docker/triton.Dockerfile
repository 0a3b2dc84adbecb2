# NVIDIA's Triton with the project's Python-based backends.
ARG TRITON=nvcr.io/nvidia/tritonserver:25.12-py3
FROM ${TRITON}
COPY constraints.txt /tmp/constraints.txt
# The image keeps its own numpy: its Python backend was built against that version.
RUN grep -E '^(llguidance|onnxruntime|pillow|tokenizers)==' /tmp/constraints.txt > /tmp/requirements.txt && \
    python3 -m pip install --no-cache-dir --disable-pip-version-check --break-system-packages -r /tmp/requirements.txt && \
    rm /tmp/constraints.txt /tmp/requirements.txt
COPY backends /opt/tritonic/backends
RUN for model in /opt/tritonic/backends/*/model.py; do \
        backend=$(dirname "$model"); \
        ln -s "$backend" "/opt/tritonserver/backends/$(basename "$backend")"; \
    done
# The backends import one another's modules by their package.
ENV PYTHONPATH=/opt/tritonic
COPY --chmod=755 docker/triton-start docker/triton-health /usr/local/bin/
# The base image has this user.
USER triton-server
# gRPC and metrics; HTTP is closed.
EXPOSE 8001 8002
CMD ["triton-start"]
