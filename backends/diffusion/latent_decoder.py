"""The decoding of latents to the pixels of images, in a thread next to the denoising loop."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backends.diffusion.components import Components
from backends.diffusion.decoder_thread import MAX_BATCH_PIXELS, DecoderThread
from backends.diffusion.denoising_job import DenoisingJob
from backends.diffusion.images import tensor_to_pixels
from backends.diffusion.pipeline_config import PipelineConfig
from backends.diffusion.schedulers import Latent
from backends.serving.images import Pixels


@dataclass(frozen=True, slots=True, eq=False)
class DecodeTask:
    """A latent of a job, float32[C, h, w].

    The decoder's thread calls `on_decoded` with the pixels, or the job's `on_failed`, or neither if the job has ended.
    The callbacks must return at once.
    """

    job: DenoisingJob
    latent: Latent
    on_decoded: Callable[[Pixels], None]


class LatentDecoder(DecoderThread[DecodeTask, Pixels]):
    """One thread that decodes waiting latents in batches of one size."""

    def __init__(self, components: Components, config: PipelineConfig) -> None:
        self._components = components
        self._name = config.vae_decoder
        self._vae = config.vae
        self._max_batch = config.max_batch
        super().__init__("diffusion-decoder")

    def select_batch(self) -> list[DecodeTask]:
        """Remove the first task and others of its size, and return them."""
        shape = self._tasks[0].latent.shape
        area = shape[1] * shape[2] * self._vae.factor**2
        size = min(max(1, MAX_BATCH_PIXELS // area), self._max_batch)
        batch = [task for task in self._tasks if task.latent.shape == shape][:size]
        self._tasks = [task for task in self._tasks if task not in batch]
        return batch

    def decode(self, tasks: list[DecodeTask]) -> list[Pixels]:
        """Return the pixels of latents of one size."""
        latents = np.stack([task.latent for task in tasks])
        found = self._components.run(self._name, {"latent": self._vae.unscale(latents)}, ["image"])
        return [tensor_to_pixels(image) for image in found["image"].astype(np.float32, copy=False)]

    def deliver(self, task: DecodeTask, result: Pixels) -> None:
        """Call a task back with its pixels."""
        task.on_decoded(result)
