"""The thread that decodes the windows of all requests together."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from backends.transcription.batch import DecoderBatch
from backends.transcription.job import TranscriptionJob, WindowTask
from backends.transcription.stats import Stats

_log = logging.getLogger(__name__)

_MAX_ENCODED = 2
"""Windows that are encoded at once. More take no less time each, and let the others wait longer."""
_MAX_STALL_SECONDS = 1.0
"""Encoding comes before decoding, so that many rows share a step; but for so long at most."""
_SLICE_SHARE = 0.5
"""Time of decoding after a stall, as a share of the stall."""


class TranscriptionScheduler:
    """One thread that encodes windows and steps the decoder. Windows join at any step and leave when they are done.

    If more windows wait than there are free rows, those of the request with the fewest rows come first. One request
    has at most half of the rows, so that a long recording leaves room for a short one that comes later.
    """

    def __init__(
        self,
        make_batch: Callable[[int], DecoderBatch],
        choose_positions: Callable[[float], int],
        max_rows: int,
        stats: Stats,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`make_batch` returns a batch for windows of so many encoder positions.

        `choose_positions` says how many a window of so many seconds needs. Windows with different numbers are stepped
        in turn. `max_rows` bounds the rows of all batches together.
        """
        self._make_batch = make_batch
        self._choose_positions = choose_positions
        self._max_rows = max_rows
        self.stats = stats
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: dict[TranscriptionJob, deque[WindowTask]] = {}
        self._jobs: set[TranscriptionJob] = set()
        self._num_jobs = 0
        self._closed = False
        self._batches: dict[int, DecoderBatch] = {}
        self._last_step = self._slice_end = 0.0
        self._thread = threading.Thread(target=self._run, name="transcription-scheduler", daemon=True)
        self._thread.start()

    def submit(self, job: TranscriptionJob) -> None:
        """Accept a job, whose windows follow with `add`. A job that was cancelled before is ignored."""
        with self._changed:
            if job.ended:
                return
            if not self._closed:
                job.arrival, self._num_jobs = self._num_jobs, self._num_jobs + 1
                self._jobs.add(job)
                self._waiting[job] = deque()
                return
        job.on_failed(RuntimeError("The model is being unloaded."))

    def add(self, task: WindowTask) -> None:
        """Queue a window of a job; it is dropped if the job has ended."""
        with self._changed:
            if task.job in self._jobs:
                self._waiting[task.job].append(task)
                self._count()
                self._changed.notify()

    def finish(self, job: TranscriptionJob) -> None:
        """Forget a job that all results have been delivered of."""
        with self._changed:
            self._end(job)

    def cancel(self, job: TranscriptionJob) -> None:
        """Remove a job; none of its rows is in the next step."""
        with self._changed:
            self._end(job)

    def close(self) -> None:
        """Let the current step end, fail every job, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        with self._changed:
            jobs = list(self._jobs)
            for job in jobs:
                self._end(job)
        for job in jobs:
            job.on_failed(RuntimeError("The model is being unloaded."))

    def _run(self) -> None:
        while self._wait():
            self._drop_cancelled()
            if tasks := self._next_tasks():
                self._start(tasks)
            else:
                self._step()
            self._deliver()

    def _drop_cancelled(self) -> None:
        """Take the rows of jobs that have ended out of the batches, and free the batches without rows."""
        for batch in self._batches.values():
            batch.remove(lambda row: row.task.job.ended)
        self._batches = {positions: batch for positions, batch in self._batches.items() if batch.rows}

    def _step(self) -> None:
        for positions, batch in list(self._batches.items()):
            self._attempt(batch.step, positions, [row.task for row in batch.rows])
        self._last_step = self._clock()

    def _wait(self) -> bool:
        """Wait until there is something to do; return false once closed."""
        with self._changed:
            while not self._closed and not any(self._waiting.values()) and not self._batches:
                self._changed.wait()
                self._last_step = self._clock()
            return not self._closed

    def _next_tasks(self) -> list[WindowTask]:
        """Take the windows to encode next out of the queue; none while it is the turn of the decoder."""
        now = self._clock()
        if self._batches:
            if now - self._last_step > _MAX_STALL_SECONDS:
                self._slice_end = now + _SLICE_SHARE * (now - self._last_step)
            if now < self._slice_end:
                return []
        with self._changed:
            tasks: list[WindowTask] = []
            free = self._max_rows - sum(len(batch.rows) for batch in self._batches.values())
            while len(tasks) < min(_MAX_ENCODED, free):
                jobs = [job for job, waiting in self._waiting.items() if waiting and self._may_start(job)]
                if tasks:
                    positions = self._positions(tasks[0])
                    jobs = [job for job in jobs if self._positions(self._waiting[job][0]) == positions]
                if not jobs:
                    break
                job = min(jobs, key=lambda job: (job.active, job.arrival))
                tasks.append(self._waiting[job].popleft())
                job.active += 1
            self._count()
            return tasks

    def _may_start(self, job: TranscriptionJob) -> bool:
        if job.language is None and job.active:
            return False  # the first window decides the language of the others
        return job.active < max(1, self._max_rows // 2)

    def _positions(self, task: WindowTask) -> int:
        return self._choose_positions(task.window.seconds)

    def _start(self, tasks: Sequence[WindowTask]) -> None:
        positions = self._positions(tasks[0])
        if positions not in self._batches:
            self._batches[positions] = self._make_batch(positions)
        batch = self._batches[positions]
        self._attempt(lambda: batch.start(tasks), positions, [*(row.task for row in batch.rows), *tasks])

    def _attempt(self, run: Callable[[], None], positions: int, tasks: Sequence[WindowTask]) -> None:
        """Call `run`; if it raises, fail the jobs of `tasks` and drop the batch, whose caches are in no known state."""
        try:
            run()
        except Exception as error:
            _log.exception("A batch of %d windows failed.", len(tasks))
            del self._batches[positions]
            failed = {task.job for task in tasks if not task.job.ended}
            with self._changed:
                for job in failed:
                    self._end(job)
            for job in failed:
                job.on_failed(error)

    def _deliver(self) -> None:
        """Take the rows that are done out of the batches, and deliver their results."""
        done = [row for batch in self._batches.values() for row in batch.rows if row.result is not None]
        for batch in self._batches.values():
            batch.remove(lambda row: row.result is not None)
        with self._changed:
            for row in done:
                row.task.job.active -= 1
            self._count()
        for row in done:
            if row.result is not None and not row.task.job.ended:
                row.task.job.on_window(row.result)

    def _end(self, job: TranscriptionJob) -> None:
        job.ended = True
        self._jobs.discard(job)
        self._waiting.pop(job, None)
        self._count()
        self._changed.notify()

    def _count(self) -> None:
        self.stats.rows_waiting = sum(map(len, self._waiting.values()))
        self.stats.rows_active = sum(job.active for job in self._jobs)
