"""The encoding of the frames of a video to a latent, one latent frame at a time."""

from collections.abc import Callable, Iterator

import numpy as np

from backends.diffusion.components import Array, Components
from backends.diffusion.families.family import Floats
from backends.diffusion.pipeline_config import PipelineConfig
from backends.diffusion.schedulers import Latent

ReadFrame = Callable[[int], Floats]
"""Returns the frame of an index, float32[3, H, W] in -1..1. Frames are read in order, each once."""


class FrameEncoder:
    """Encodes frames by the encoder of the VAE, with its caches. May be used from any thread."""

    def __init__(self, components: Components, config: PipelineConfig) -> None:
        assert config.video is not None
        self._components = components
        self._first, self._next = config.vae_encoder, config.video.vae_encoder_next
        self._num_caches = config.video.encoder_caches
        self._vae = config.vae

    def encode(self, read_frame: ReadFrame, num_frames: int) -> Latent:
        """Return the latent of `num_frames` frames, float32[C, F, h, w], in the units of the denoiser.

        It is the mean of the encoder's distribution, as in diffusers' video pipelines. Raises what `Components` and
        `read_frame` raise.
        """
        means = [np.split(moments, 2)[0] for moments in self._moments(read_frame, num_frames)]
        return self._vae.scale(np.concatenate(means, axis=1))

    def _moments(self, read_frame: ReadFrame, num_frames: int) -> Iterator[Floats]:
        """Yield the moments of each latent frame, float32[2 C, 1, h, w]."""
        name, start, stop = self._first, 0, 1
        caches: dict[str, Array] = {}
        while start < num_frames:
            assert name is not None
            video = np.stack([read_frame(index) for index in range(start, stop)], axis=1)
            start, stop = stop, stop + self._vae.temporal_factor
            wanted = [f"cache_out_{number}" for number in range(self._num_caches)] if start < num_frames else []
            found = self._components.run(name, {"video": video[None], **caches}, ["moments", *wanted])
            caches = {output.replace("cache_out", "cache"): found[output] for output in wanted}
            name = self._next
            yield found["moments"][0].astype(np.float32, copy=False)
