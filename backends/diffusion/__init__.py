"""The Triton backend `diffusion`: it generates images from prompts.

It has no weights. Other models of the same server compute for it: the components, which are text encoders, a denoiser,
and the encoder and decoder of a VAE (`components.py`).

Triton loads `model.py`, which reads tensors (`tensors.py`) and passes each request to `DiffusionFrontend`
(`request_frontend.py`, `active_request.py`). The request is preprocessed (`preprocessor.py`): its prompt is encoded by
the rules of the model family (`families/`), and the image to edit, if there is one, becomes an `InitImage`
(`init_image.py`). Its images become rows (`denoising_job.py`) of the denoising loop that all requests share
(`denoiser.py`): rows of equal size go through the denoiser as one batch, whichever request and step they belong to.
Finished latents are decoded (`latent_decoder.py`) and sent as image files (`images.py`).
"""
