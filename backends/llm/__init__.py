"""The Triton backend `llm`: text generation with continuous batching.

`model.py` is what Triton loads. It reads tensors, and hands each request to an `Engine` (`engine.py`), which knows
neither Triton nor HTTP. `batching/` is an engine that schedules rows over a `Forward`; `ort/` is such a forward pass on
onnxruntime.
"""
