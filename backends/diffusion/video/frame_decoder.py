"""The decoding of latents to the frames of videos, one latent frame at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from backends.diffusion.components import Array, Components
from backends.diffusion.decoder_thread import MAX_BATCH_PIXELS, DecoderThread
from backends.diffusion.denoising_job import DenoisingJob
from backends.diffusion.families.family import Floats
from backends.diffusion.pipeline_config import PipelineConfig
from backends.diffusion.schedulers import Latent
from backends.diffusion.stats import Stats

_MAX_UNREAD_CHUNKS = 2
"""Chunks of frames of one video that may wait for their reader."""
_MIN_OPEN_STREAMS = 2
"""Videos that are decoded in turns however large they are: a short one does not wait for the end of a long one."""


@dataclass(eq=False, slots=True)
class FrameStream:
    """A latent of a job, float32[C, F, h, w], that becomes frames.

    The decoder's thread calls `on_frames` with the frames of each latent frame in order, float32[3, n, H, W], and
    whether they are the last, or the job's `on_failed`, or neither once the job has ended. The callbacks must return
    at once. Who has read the frames calls `FrameDecoder.frames_read`.
    """

    job: DenoisingJob
    latent: Latent
    on_frames: Callable[[Floats, bool], None]
    next_frame: int = field(default=0, init=False)
    """The index of the latent frame to decode next."""
    unread: int = field(default=0, init=False)
    caches: list[Array] = field(default_factory=list, init=False)
    """The caches after the last call, each with a batch dimension of 1."""

    @property
    def length(self) -> int:
        """The number of latent frames."""
        return self.latent.shape[1]

    @property
    def done(self) -> bool:
        """True once every frame is decoded."""
        return self.next_frame == self.length


class FrameDecoder(DecoderThread[FrameStream, tuple[Floats, list[Array]]]):
    """One thread that decodes waiting latents in turns, a latent frame of each; those of one size share a batch.

    A decoder has caches for each video that it has begun, so it works on a few at a time; a latent of one frame needs
    none. A video whose frames are not read waits.
    """

    def __init__(self, components: Components, config: PipelineConfig, stats: Stats) -> None:
        """Count decoded frames in `stats.frames`."""
        assert config.video is not None
        self._components = components
        self._first, self._next = config.vae_decoder, config.video.vae_decoder_next
        self._num_caches = config.video.decoder_caches
        self._vae = config.vae
        self._max_batch = config.max_batch
        self._stats = stats
        super().__init__("diffusion-frame-decoder")

    def frames_read(self, stream: FrameStream) -> None:
        """Note that one call of `on_frames` is dealt with. May be called from any thread."""
        with self._changed:
            stream.unread -= 1
            self._changed.notify()

    def select_batch(self) -> list[FrameStream]:
        """Return the first stream that need not wait and others like it, and move them to the end of the queue."""
        room = max(_MIN_OPEN_STREAMS, self._batch_size(self._tasks[0]))
        room -= sum(stream.next_frame > 0 for stream in self._tasks)
        batch: list[FrameStream] = []
        for stream in self._tasks:
            opens = stream.next_frame == 0 and stream.length > 1
            if stream.unread >= _MAX_UNREAD_CHUNKS or (opens and room <= 0):
                continue
            if not batch or (_kind(stream) == _kind(batch[0]) and len(batch) < self._batch_size(batch[0])):
                batch.append(stream)
                room -= opens
        self._tasks = [stream for stream in self._tasks if stream not in batch] + batch
        return batch

    def decode(self, tasks: list[FrameStream]) -> list[tuple[Floats, list[Array]]]:
        """Return the frames of the next latent frame of each stream, and the caches after it."""
        is_first = tasks[0].next_frame == 0
        latents = np.stack([stream.latent[:, stream.next_frame : stream.next_frame + 1] for stream in tasks])
        inputs: dict[str, Array] = {"latent": self._vae.unscale(latents)}
        if not is_first:
            for number in range(self._num_caches):
                caches = [stream.caches[number] for stream in tasks]
                inputs[f"cache_{number}"] = caches[0] if len(caches) == 1 else np.concatenate(caches)
        # The caches after the last latent frame are of no use.
        names = [] if all(s.next_frame + 1 == s.length for s in tasks) else self._cache_outputs()
        found = self._components.run(self._first if is_first else self._next, inputs, ["video", *names])
        frames = found["video"].astype(np.float32, copy=False)
        self._stats.frames += len(tasks) * frames.shape[2]
        return [(frames[row], [found[name][row : row + 1] for name in names]) for row in range(len(tasks))]

    def deliver(self, task: FrameStream, result: tuple[Floats, list[Array]]) -> None:
        """Note the caches of a stream, and call it back with its frames."""
        frames, caches = result
        with self._changed:
            task.unread += 1
            task.next_frame += 1
            task.caches = [] if task.done else caches
        if task.done:
            self.drop(task)
        task.on_frames(frames, task.done)

    def _cache_outputs(self) -> list[str]:
        return [f"cache_out_{number}" for number in range(self._num_caches)]

    def _batch_size(self, stream: FrameStream) -> int:
        """Return how many streams of one size may share a call."""
        height, width = stream.latent.shape[2:]
        pixels = height * width * self._vae.factor**2 * self._vae.temporal_factor
        return min(max(1, MAX_BATCH_PIXELS // pixels), self._max_batch)


def _kind(stream: FrameStream) -> tuple[bool, tuple[int, ...]]:
    """Return what streams of one batch have in common."""
    return stream.next_frame > 0, stream.latent.shape[2:]
