"""The Triton backend `diffusion`: a prompt in, pictures out.

It has no weights of its own. What computes are other models of the same server, the components (text encoders, the
denoiser, the encoder and decoder of pictures), which are called from here (`components.py`). `model.py` is what Triton
loads. It reads tensors and hands each request to the `Desk` (`desk.py`). There a request is prepared (`preparing.py`):
its prompt is encoded by its family's rules (`families/`), and its picture, where it brings one, is put onto a canvas
(`canvas.py`). Its images become rows (`rows.py`) of one loop for all requests (`denoiser.py`): rows of like size go
through the denoiser together, whoever they belong to and whichever step they are at. What is done is decoded
(`decoder.py`) and sent as an encoded file.
"""
