# NVIDIA's Triton with the project's Python-based backends.
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:25.12-py3
FROM ${TRITON_IMAGE}
ARG PIP_LICENSES=5.5.5
# Further packages of constraints.txt: `av` for models of videos. Its wheel has GPL libraries.
ARG PACKAGES
# NVIDIA's images end as root or as triton-server; the layers below need root.
USER 0
COPY constraints.txt docker/install-missing docker/inventory.py /tmp/tritonic/
# What the image has stays: its Python backend, vLLM and TensorRT-LLM were built against those versions.
RUN sh /tmp/tritonic/install-missing /tmp/tritonic/constraints.txt hibari-tts llguidance onnxruntime pillow tokenizers ${PACKAGES} && \
    python3 -m pip install --no-cache-dir --disable-pip-version-check --target /tmp/tritonic/licences "pip-licenses==${PIP_LICENSES}" && \
    python3 /tmp/tritonic/inventory.py /tmp/tritonic/licences /usr/share/tritonic && \
    rm -r /tmp/tritonic
COPY backends /opt/tritonic/backends
RUN for model in /opt/tritonic/backends/*/model.py; do \
        backend=$(dirname "$model"); \
        ln -s "$backend" "/opt/tritonserver/backends/$(basename "$backend")"; \
    done
# The backends import one another's modules by their package.
ENV PYTHONPATH=/opt/tritonic
COPY docker/triton-start docker/triton-health /usr/local/bin/
# triton-server of the base image, as a number: Kubernetes' runAsNonRoot cannot tell whether a name is root.
USER 1000:1000
# gRPC and metrics; HTTP is closed.
EXPOSE 8001 8002
HEALTHCHECK --interval=5s --timeout=3s --retries=3 --start-period=120s CMD ["triton-health"]
CMD ["triton-start"]
