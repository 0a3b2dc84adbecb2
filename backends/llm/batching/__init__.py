"""Continuous batching over any `ModelRunner`: sequences join and leave the batch between two decode steps.

- `engine.py` owns the thread, the open requests and the waiting queue.
- `scheduler.py` runs one iteration: prefills, then one decode step over all running slots.
- `prefill_scheduler.py` admits waiting sequences, and computes their prompts chunk by chunk or copies them from the
  prefix cache.
- `slots.py` records which sequence runs in which slot, and `waiting_queue.py` which one is admitted next.
- `sequence.py` turns logits into tokens and text (`sampler.py`, `detokenizer.py`, `stop_strings.py`).
- `model_runner.py` is the interface to the model.
"""
