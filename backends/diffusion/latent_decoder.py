"""The decoding of latents to pixels, in a thread next to the denoising loop."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from backends.diffusion.components import Components
from backends.diffusion.denoising_job import DenoisingJob
from backends.diffusion.families.family import Floats
from backends.diffusion.images import Pixels, tensor_to_pixels
from backends.diffusion.pipeline_config import PipelineConfig
from backends.diffusion.schedulers import Latent

_log = logging.getLogger(__name__)

MAX_BATCH_PIXELS = 1 << 20
"""Pixels of one batch together: a decoder needs about half a kilobyte of memory per pixel."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodeTask:
    """A latent of a job, float32[C, h, w].

    The decoder's thread calls `on_decoded` with the pixels, or the job's `on_failed`, or neither if the job has ended.
    The callbacks must return at once.
    """

    job: DenoisingJob
    latent: Latent
    on_decoded: Callable[[Pixels], None]


class LatentDecoder:
    """One thread that decodes waiting latents in batches of one size."""

    def __init__(self, components: Components, config: PipelineConfig) -> None:
        self._components = components
        self._name = config.vae_decoder
        self._vae = config.vae
        self._max_batch = config.max_batch
        self._changed = threading.Condition()
        self._tasks: list[DecodeTask] = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="diffusion-decoder", daemon=True)
        self._thread.start()

    def submit(self, tasks: Sequence[DecodeTask]) -> None:
        """Queue latents; those of one size that are submitted together share a batch if they fit."""
        with self._changed:
            self._tasks += tasks
            self._changed.notify()

    def close(self) -> None:
        """Let the current batch end, drop the other tasks, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while tasks := self._next_batch():
            self._decode_all(tasks)

    def _decode_all(self, tasks: list[DecodeTask]) -> None:
        try:
            pixels = self._decode(np.stack([task.latent for task in tasks]))
        except Exception as error:
            if len(tasks) > 1:  # one task may have failed the whole batch
                for task in tasks:
                    self._decode_all([task])
                return
            _log.exception("A latent could not be decoded.")
            tasks[0].job.on_failed(error)
        else:
            for task, image in zip(tasks, pixels, strict=True):
                task.on_decoded(image)

    def _next_batch(self) -> list[DecodeTask]:
        """Wait for tasks and remove the first and others of its size; return none once closed."""
        with self._changed:
            while True:
                self._tasks = [task for task in self._tasks if not task.job.ended]
                if self._closed:
                    return []
                if self._tasks:
                    break
                self._changed.wait()
            shape = self._tasks[0].latent.shape
            area = shape[1] * shape[2] * self._vae.factor**2
            size = min(max(1, MAX_BATCH_PIXELS // area), self._max_batch)
            batch = [task for task in self._tasks if task.latent.shape == shape][:size]
            self._tasks = [task for task in self._tasks if task not in batch]
            return batch

    def _decode(self, latents: Floats) -> list[Pixels]:
        found = self._components.run(self._name, {"latent": self._vae.unscale(latents)}, ["image"])
        return [tensor_to_pixels(image) for image in found["image"].astype(np.float32, copy=False)]
