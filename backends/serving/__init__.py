"""The part that all backends share: everything between Triton's Python backend and a scheduler.

The request frontend (admission, disconnects, ordered responses, close), reading of tensors and parameters, errors with
codes, metrics, tokenizers, image files, a process that decodes untrusted files, and workarounds for known traps of
Triton's Python backend. It imports no backend.
"""
