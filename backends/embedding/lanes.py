"""One queue of texts for all requests, and threads that take runs from it."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from backends.embedding.encoder import Encoder, Rows, Tokens
from backends.embedding.figures import Figures
from backends.embedding.window import widen

_log = logging.getLogger(__name__)

BUDGET = 512
"""Tokens of one run, padding included. More gain nothing, and let those who come meanwhile wait longer."""
SMALLEST = 64
"""Few waiting tokens are shared out among the lanes, but not into runs of fewer than this."""
WASTE = 0.05
"""The share of a run that may be padding."""


@dataclass(eq=False, slots=True)
class Job:
    """The texts of one request. `done` is called once with float32[texts, dimensions], or `failed`; or neither, where
    the job was cancelled. They are called from a lane's thread and must return at once.
    """

    texts: Sequence[Tokens]
    done: Callable[[Rows], None]
    failed: Callable[[Exception], None]
    order: int = field(default=0, init=False)
    turn: int = field(default=0, init=False)
    rows: list[Rows | None] = field(default_factory=list, init=False)
    left: int = field(default=0, init=False)
    ended: bool = field(default=False, init=False)


Waiting = tuple[int, int, int, Job]
"""Length, the job's place in line, the text's place in the job, and the job."""


class Lanes:
    """Each lane is a thread. It takes the longest text of the job whose turn it is, and those next to it in length.

    Time is counted in tokens that were taken. A job's turn is the time at which it would be done if it had been alone
    from the moment it came. So small jobs overtake large ones, but only those that come before as many tokens are taken
    as the large one has: nobody waits for ever, and whatever waits fills the run.
    """

    def __init__(self, encoder: Encoder, count: int, figures: Figures | None = None) -> None:
        """Start `count` threads."""
        self._encoder = encoder
        self._count = count
        self.figures = figures or Figures()
        self._changed = threading.Condition()
        self._waiting: list[Waiting] = []
        self._jobs: dict[int, Job] = {}
        self._next = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"embedding-lane-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Put a job's texts into the queue; each has at least one token."""
        with self._changed:
            if not self._closed:
                job.order, self._next = self._next, self._next + 1
                job.turn = self.figures.tokens + sum(map(len, job.texts))
                job.rows, job.left = [None] * len(job.texts), len(job.texts)
                self._jobs[job.order] = job
                self._waiting += [(len(text), job.order, index, job) for index, text in enumerate(job.texts)]
                self._waiting.sort()
                self._count_waiting()
                self._changed.notify(min(len(job.texts), self._count))
                return
        job.failed(RuntimeError("The model is being unloaded."))

    def cancel(self, job: Job) -> None:
        """Forget a job; what runs already is thrown away when it comes."""
        with self._changed:
            self._end(job)

    def close(self) -> None:
        """Let the runs that have begun end, fail every job that is open, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        with self._changed:
            open_jobs = list(self._jobs.values())
            for job in open_jobs:
                self._end(job)
        for job in open_jobs:
            job.failed(RuntimeError("The model is being unloaded."))

    def _run(self) -> None:
        while (run := self._take()) is not None:
            texts = [job.texts[index] for _, _, index, job in run]
            try:
                rows = self._encoder.embed(texts)
            except Exception as error:
                _log.exception("A run of %d texts failed.", len(run))
                self._fail(run, error)
            else:
                self._give(run, rows)

    def _take(self) -> list[Waiting] | None:
        """Wait for texts, and remove a run of them from the queue; None at the end."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            _, first = min((job.turn, order) for _, order, _, job in self._waiting)
            anchor = max(at for at, (_, order, _, _) in enumerate(self._waiting) if order == first)
            lengths = [length for length, _, _, _ in self._waiting]
            budget = min(BUDGET, max(SMALLEST, -(-sum(lengths) // self._count)))
            start, stop = widen(lengths, anchor, budget, WASTE)
            run = self._waiting[start:stop]
            del self._waiting[start:stop]
            self._count_waiting()
            self.figures.runs += 1
            self.figures.texts += len(run)
            self.figures.tokens += sum(lengths[start:stop])
            self.figures.padding += (stop - start) * lengths[stop - 1] - sum(lengths[start:stop])
            return run

    def _give(self, run: list[Waiting], rows: Rows) -> None:
        done = []
        with self._changed:
            for (_, _, index, job), row in zip(run, rows, strict=True):
                if job.ended:
                    continue
                job.rows[index] = row
                job.left -= 1
                if not job.left:
                    self._end(job)
                    done.append(job)
        for job in done:
            job.done(np.stack([row for row in job.rows if row is not None]))

    def _fail(self, run: list[Waiting], error: Exception) -> None:
        with self._changed:
            failed = {job.order: job for _, _, _, job in run if not job.ended}
            for job in failed.values():
                self._end(job)
        for job in failed.values():
            job.failed(error)

    def _end(self, job: Job) -> None:
        if job.ended:
            return
        job.ended = True
        self._jobs.pop(job.order, None)
        if any(order == job.order for _, order, _, _ in self._waiting):
            self._waiting = [waiting for waiting in self._waiting if waiting[1] != job.order]
        self._count_waiting()

    def _count_waiting(self) -> None:
        self.figures.texts_waiting = len(self._waiting)
