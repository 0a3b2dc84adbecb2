"""The Triton backend `onnxruntime`: it runs an ONNX file as NVIDIA's ONNX Runtime backend does.

It replaces that backend where it is not installed, as in the server from the wheel, and reads the same `config.pbtxt`,
so that either can serve the same model repository. Triton loads `model.py`. `options.py` and
`backends.serving.execution_providers` read the configuration, `session.py` opens the file and compares it with the
declared tensors, and `batching.py` batches the requests of one call.

The configuration must declare the tensors: when Triton asks a Python-based backend to complete a configuration, it does
not pass the model's folder.
"""
