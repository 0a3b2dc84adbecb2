"""From finished latents to pixels, beside the loop."""

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
"""Of one run together: a decoder takes about half a kilobyte a pixel while it works."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodeTask:
    """A latent of a job. `decoded` is called from the decoder's thread and must return at once; or the job's `failed`;
    or neither, where the job has ended.
    """

    job: DenoisingJob
    latent: Latent
    on_decoded: Callable[[Pixels], None]


class LatentDecoder:
    """One thread, which decodes what waits in batches of one size."""

    def __init__(self, components: Components, description: PipelineConfig) -> None:
        self._components = components
        self._name = description.vae_decoder
        self._vae = description.vae
        self._max_batch = description.max_batch
        self._changed = threading.Condition()
        self._tasks: list[DecodeTask] = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="diffusion-decoder", daemon=True)
        self._thread.start()

    def submit(self, tasks: Sequence[DecodeTask]) -> None:
        """Have latents decoded; those that come at once share a run where they fit."""
        with self._changed:
            self._tasks += tasks
            self._changed.notify()

    def close(self) -> None:
        """Let the run that has begun end, forget the others, and end the thread."""
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
            if len(tasks) > 1:  # one of them may be at fault for all, so each is tried alone
                for task in tasks:
                    self._decode_all([task])
                return
            _log.exception("A latent could not be decoded.")
            tasks[0].job.on_failed(error)
        else:
            for task, picture in zip(tasks, pixels, strict=True):
                task.on_decoded(picture)

    def _next_batch(self) -> list[DecodeTask]:
        """Wait for tasks, and take the first and others of its size; none at the end."""
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
            most = min(max(1, MAX_BATCH_PIXELS // area), self._max_batch)
            taken = [task for task in self._tasks if task.latent.shape == shape][:most]
            self._tasks = [task for task in self._tasks if task not in taken]
            return taken

    def _decode(self, latents: Floats) -> list[Pixels]:
        found = self._components.run(self._name, {"latent": self._vae.unscale(latents)}, ["image"])
        return [tensor_to_pixels(image) for image in found["image"].astype(np.float32, copy=False)]
