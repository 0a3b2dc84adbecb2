"""The Triton backend `face_swap`: two pictures in, the second with the face of the first out.

Triton loads `model.py`, which reads tensors (`tensors.py`) and passes each request to `FaceSwapFrontend`
(`request_frontend.py`), whose threads each work on one request. Faces are found by three networks (`detection.py`) and
their 68 points by a fourth (`landmarks.py`, `faces.py`). Each face of the target is replaced by warping the source's
(`warp_swapper.py`), or by a network of the model (`neural_swapper.py`).
"""
