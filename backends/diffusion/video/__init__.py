"""Videos: their requests (`preprocessor.py`, `active_request.py`), and the way between latents and frames.

The VAE computes one latent frame at a time. Its caches hold the earlier frames that its convolutions need
(`frame_decoder.py`, `frame_encoder.py`). Decoded frames go into an MP4 at once (`mp4_file.py`), so memory does not grow
with the length of a video.
"""
