"""The Triton backend `onnxruntime`: an ONNX file, run as NVIDIA's ONNX Runtime backend runs it.

It stands in where that backend is not installed, as in the server from the wheel, and reads the same `config.pbtxt`, so
that the same model repository runs on either. `model.py` is what Triton loads. `options.py` and `providers.py` read the
configuration, `session.py` opens the file and compares it with what the configuration declares, and `batch.py` has the
requests of one call run together.

Tensors have to be declared: a Python-based backend is not told where a model lies when it is asked to complete its
configuration.
"""
