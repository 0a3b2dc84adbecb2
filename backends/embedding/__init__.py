"""The Triton backend `embedding`: one vector for each text.

Triton loads `model.py`, which reads tensors (`tensors.py`) and passes each request to `EmbeddingFrontend`
(`request_frontend.py`). The frontend tokenises it (`tokenization.py`) and puts its texts into the queue that all
requests share (`scheduler.py`). From there, texts of similar length go through the network as one batch, whichever
requests they belong to (`encoder.py`).
"""
