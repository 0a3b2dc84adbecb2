"""The Triton backend `diffusion`: it generates images or videos from prompts.

It has no weights. Other models of the same server compute for it: the components, which are text encoders, a denoiser,
and the encoder and decoder of a VAE (`components.py`).

Triton loads `model.py`, which reads tensors (`tensors.py`) and passes each request to an `ImageFrontend`
(`image_frontend.py`, `active_image_request.py`) or a `VideoFrontend` (`video/`); `request_frontend.py`,
`active_request.py` and `preprocessor.py` hold what both share. The request is preprocessed: its prompt is encoded by
the rules of the model family (`families/`), and the image to edit, if there is one, becomes an `InitImage`
(`init_image.py`). Its images or its video become rows (`denoising_job.py`) of the denoising loop that all requests
share (`denoiser.py`): rows of equal shape go through the denoiser as one batch, whichever request and step they belong
to. Finished latents are decoded (`decoder_thread.py`). Images are sent as files (`latent_decoder.py`, `images.py`);
the frames of a video go into an MP4 as they are decoded (`video/frame_decoder.py`, `video/mp4_file.py`).
"""
