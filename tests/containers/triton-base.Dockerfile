# A stand-in for nvcr.io/nvidia/tritonserver: the server of the wheel nvidia-pytriton, laid out like NVIDIA's image.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
RUN pip install --no-cache-dir --disable-pip-version-check nvidia-pytriton==0.7.0 numpy==1.26.4 && \
    site=/usr/local/lib/python3.11/site-packages && mkdir -p /opt/tritonserver/bin /opt/tritonserver/lib && \
    cp -r "$site/pytriton/tritonserver/backends" /opt/tritonserver/ && \
    cp "$site/pytriton/tritonserver/bin/tritonserver" /opt/tritonserver/bin/ && \
    cp "$site/pytriton/tritonserver/python_backend_stubs/3.11/triton_python_backend_stub" /opt/tritonserver/backends/python/ && \
    cp -r "$site/nvidia_pytriton.libs/"* /opt/tritonserver/lib/ && \
    useradd --uid 1000 --create-home triton-server
ENV PATH=/opt/tritonserver/bin:$PATH \
    LD_LIBRARY_PATH=/opt/tritonserver/lib:/usr/local/lib
USER 1000:1000
