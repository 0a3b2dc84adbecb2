"""The Triton backend `speech`: texts in, chunks of samples out.

Triton loads `model.py`, which reads tensors (`tensors.py`) and passes each request to `SpeechFrontend`
(`request_frontend.py`). The frontend checks and prepares the text (`text/`) and hands its sentences, as phonemes, to
the scheduler that all requests share (`scheduler.py`). Its threads synthesise them one by one with the acoustic model
(`families/`) and send each sentence while later ones are synthesised.
"""
