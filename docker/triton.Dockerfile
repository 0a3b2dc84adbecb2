# NVIDIA's Triton with the project's Python-based backends beside its own.
ARG TRITON=nvcr.io/nvidia/tritonserver:25.12-py3
FROM ${TRITON}
COPY constraints.txt /tmp/constraints.txt
# numpy stays as the image has it: its Python backend was built against that one.
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
# The image brings this user along.
USER triton-server
# gRPC and metrics; HTTP is closed.
EXPOSE 8001 8002
CMD ["triton-start"]
