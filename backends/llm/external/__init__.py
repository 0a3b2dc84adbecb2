"""Engines that schedule, batch and cache by themselves: vLLM and TensorRT-LLM's LLM API.

`engine.py` makes an `Engine` of a `Runtime`, which each of the two modules `vllm.py` and `tensorrt_llm.py` has. Text,
stop strings and log probabilities are those of the other engines of this backend: a runtime returns token ids.
"""
