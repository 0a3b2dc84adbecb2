"""Videos: their requests (`preprocessor.py`, `active_request.py`), and the way between latents and frames.

The VAE computes one latent frame at a time, with caches of what it has seen (`frame_decoder.py`, `frame_encoder.py`).
Its frames go into an MP4 as they come (`mp4_file.py`), so that memory does not grow with the length of a video.
"""
