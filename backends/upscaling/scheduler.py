"""One loop for the tiles of all callers: the network gets a tile of each request in turn."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from backends.serving.images import Pixels
from backends.upscaling.network import Network
from backends.upscaling.stats import Stats
from backends.upscaling.tiling import Floats, Tile

_log = logging.getLogger(__name__)


class UpscaleJob:
    """A picture, and the one that its tiles become. The scheduler alone calls all methods but `wait`."""

    def __init__(self, pixels: Pixels, scale: int, tiles: Sequence[Tile], on_progress: Callable[[float], None]) -> None:
        """`tiles` are those of `pixels`, uint8[height, width, 3]. `on_progress` is called from a scheduler thread."""
        height, width = pixels.shape[:2]
        self.pixels = pixels
        self.ended = threading.Event()
        self.error: Exception | None = None
        self.num_taken = 0
        self._result = np.empty((height * scale, width * scale, 3), np.uint8)
        self._scale = scale
        self._tiles = tiles
        self._on_progress = on_progress
        self._pasting = threading.Lock()
        self._upscaled: dict[int, Floats] = {}
        """Windows that wait for an earlier one, by the index of their tile."""
        self._num_pasted = 0

    @property
    def window_size(self) -> tuple[int, ...]:
        """Height and width of each window, in pixels."""
        return self._tiles[0].cut(self.pixels).shape[:2]

    @property
    def has_tiles(self) -> bool:
        """True while tiles have not been taken."""
        return self.num_taken < len(self._tiles)

    def take(self) -> int:
        """Return the index of the next tile."""
        self.num_taken += 1
        return self.num_taken - 1

    def window(self, index: int) -> Pixels:
        """Return the window of a tile."""
        return self._tiles[index].cut(self.pixels)

    def paste(self, index: int, upscaled: Floats) -> bool:
        """Paste a window, and those that waited for it. Return whether the result is complete."""
        with self._pasting:
            self._upscaled[index] = upscaled
            while not self.ended.is_set() and self._num_pasted in self._upscaled:
                self._tiles[self._num_pasted].paste(self._upscaled.pop(self._num_pasted), self._result, self._scale)
                self._num_pasted += 1
                self._on_progress(self._num_pasted / len(self._tiles))
            return self._num_pasted == len(self._tiles)

    def wait(self) -> Pixels:
        """Return the result, uint8[scale * height, scale * width, 3], when it is complete.

        Raises the error of the scheduler. A job that was cancelled returns at once, with an incomplete result.
        """
        self.ended.wait()
        if self.error is not None:
            raise self.error
        return self._result


Batch = list[tuple[UpscaleJob, int]]
"""Jobs, each with the index of a tile."""


class UpscaleScheduler:
    """Threads that run the network. A run has one tile, or `max_rows` of them whose windows have the same size.

    Requests take turns by the tile, so that a large picture does not keep small ones waiting. A cancelled request stops
    after the tiles that are being computed.
    """

    def __init__(self, network: Network, num_threads: int, max_rows: int, stats: Stats | None = None) -> None:
        """Start `num_threads` threads."""
        self.stats = stats or Stats()
        self._network = network
        self._max_rows = max_rows
        self._changed = threading.Condition()
        self._turns: deque[UpscaleJob] = deque()
        """Jobs with tiles that no run has had, in the order of their turns."""
        self._open: set[UpscaleJob] = set()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"upscaling-scheduler-{number}", daemon=True)
            for number in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: UpscaleJob) -> None:
        """Queue a job. A job that was cancelled before is ignored."""
        with self._changed:
            if job.ended.is_set():
                return
            if self._closed:
                self._end(job, RuntimeError("the model is being unloaded"))
                return
            self._open.add(job)
            self._turns.append(job)
            self._count()
            self._changed.notify()

    def cancel(self, job: UpscaleJob) -> None:
        """Drop a job; what its running tiles become is discarded."""
        with self._changed:
            self._end(job)

    def close(self) -> None:
        """Let the running tiles end, fail every unfinished job, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        with self._changed:
            for job in list(self._open):
                self._end(job, RuntimeError("the model is being unloaded"))

    def _run(self) -> None:
        while batch := self._next_batch():
            self._upscale(batch)
            del batch  # waiting for the next batch must not keep its pictures

    def _next_batch(self) -> Batch:
        """Wait for tiles, and take some: one of each job in turn until the batch is full. Return none once closed."""
        with self._changed:
            while not self._turns and not self._closed:
                self._changed.wait()
            if self._closed:
                return []
            size = self._turns[0].window_size
            batch: Batch = []
            while len(batch) < self._max_rows:
                job = next((job for job in self._turns if job.window_size == size), None)
                if job is None:
                    break
                batch.append((job, job.take()))
                self._turns.remove(job)
                if job.has_tiles:
                    self._turns.append(job)
            self._count()
            self.stats.runs += 1
            self.stats.tiles += len(batch)
            if self._turns:
                self._changed.notify()
            return batch

    def _upscale(self, batch: Batch) -> None:
        try:
            upscaled = self._network.upscale([job.window(index) for job, index in batch])
            complete = [job for (job, index), found in zip(batch, upscaled, strict=True) if job.paste(index, found)]
        except Exception as error:
            if len(batch) > 1:  # one tile may have failed the whole batch
                for row in batch:
                    self._upscale([row])
                return
            _log.exception("A tile could not be upscaled.")
            with self._changed:
                self._end(batch[0][0], error)
        else:
            with self._changed:
                for job in complete:
                    self._end(job)

    def _end(self, job: UpscaleJob, error: Exception | None = None) -> None:
        if job.ended.is_set():
            return
        job.error = error
        job.ended.set()
        self._open.discard(job)
        if job in self._turns:
            self._turns.remove(job)
        self._count()

    def _count(self) -> None:
        self.stats.requests_waiting = len(self._turns)
