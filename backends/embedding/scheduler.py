"""One queue of texts for all requests, and threads that take runs from it."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from backends.embedding.batch_window import choose_batch_window
from backends.embedding.encoder import Embeddings, Encoder, TokenIds
from backends.embedding.stats import Stats

_log = logging.getLogger(__name__)

MAX_BATCH_TOKENS = 512
"""Tokens of one run, padding included. More gain nothing, and let those who come meanwhile wait longer."""
MIN_BATCH_TOKENS = 64
"""Few waiting tokens are shared out among the lanes, but not into runs of fewer than this."""
MAX_PADDING_SHARE = 0.05
"""The share of a run that may be padding."""


@dataclass(eq=False, slots=True)
class EmbeddingJob:
    """The texts of one request. `done` is called once with float32[texts, dimensions], or `failed`; or neither, where
    the job was cancelled. They are called from a lane's thread and must return at once.
    """

    texts: Sequence[TokenIds]
    on_finished: Callable[[Embeddings], None]
    on_failed: Callable[[Exception], None]
    arrival_index: int = field(default=-1, init=False)
    virtual_finish_tokens: int = field(default=0, init=False)
    embeddings: list[Embeddings | None] = field(default_factory=list, init=False)
    num_pending: int = field(default=0, init=False)
    ended: bool = field(default=False, init=False)


QueueEntry = tuple[int, int, int, EmbeddingJob]
"""Length, the job's place in line, the text's place in the job, and the job."""


class EmbeddingScheduler:
    """Each lane is a thread. It takes the longest text of the job whose turn it is, and those next to it in length.

    Time is counted in tokens that were taken. A job's turn is the time at which it would be done if it had been alone
    from the moment it came. So small jobs overtake large ones, but only those that come before as many tokens are taken
    as the large one has: nobody waits for ever, and whatever waits fills the run.
    """

    def __init__(self, encoder: Encoder, count: int, figures: Stats | None = None) -> None:
        """Start `count` threads."""
        self._encoder = encoder
        self._num_threads = count
        self.stats = figures or Stats()
        self._changed = threading.Condition()
        self._queue: list[QueueEntry] = []
        self._jobs: dict[int, EmbeddingJob] = {}
        self._next_index = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run_batches, name=f"embedding-lane-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: EmbeddingJob) -> None:
        """Put a job's texts into the queue, unless it was cancelled before; each text has at least one token."""
        with self._changed:
            if job.ended:
                return
            if not self._closed:
                job.arrival_index, self._next_index = self._next_index, self._next_index + 1
                job.virtual_finish_tokens = self.stats.tokens + sum(map(len, job.texts))
                job.embeddings, job.num_pending = [None] * len(job.texts), len(job.texts)
                self._jobs[job.arrival_index] = job
                self._queue += [(len(text), job.arrival_index, index, job) for index, text in enumerate(job.texts)]
                self._queue.sort()
                self._count_waiting()
                self._changed.notify(min(len(job.texts), self._num_threads))
                return
        job.on_failed(RuntimeError("The model is being unloaded."))

    def cancel(self, job: EmbeddingJob) -> None:
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
            job.on_failed(RuntimeError("The model is being unloaded."))

    def _run_batches(self) -> None:
        while (run := self._next_batch()) is not None:
            texts = [job.texts[index] for _, _, index, job in run]
            try:
                rows = self._encoder.embed(texts)
            except Exception as error:
                _log.exception("A run of %d texts failed.", len(run))
                self._fail(run, error)
            else:
                self._deliver(run, rows)

    def _next_batch(self) -> list[QueueEntry] | None:
        """Wait for texts, and remove a run of them from the queue; None at the end."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            _, first = min((job.virtual_finish_tokens, order) for _, order, _, job in self._queue)
            anchor = max(at for at, (_, order, _, _) in enumerate(self._queue) if order == first)
            lengths = [length for length, _, _, _ in self._queue]
            budget = min(MAX_BATCH_TOKENS, max(MIN_BATCH_TOKENS, -(-sum(lengths) // self._num_threads)))
            start, stop = choose_batch_window(lengths, anchor, budget, MAX_PADDING_SHARE)
            run = self._queue[start:stop]
            del self._queue[start:stop]
            self._count_waiting()
            self.stats.runs += 1
            self.stats.texts += len(run)
            self.stats.tokens += sum(lengths[start:stop])
            self.stats.padding += (stop - start) * lengths[stop - 1] - sum(lengths[start:stop])
            return run

    def _deliver(self, run: list[QueueEntry], rows: Embeddings) -> None:
        done = []
        with self._changed:
            for (_, _, index, job), row in zip(run, rows, strict=True):
                if job.ended:
                    continue
                job.embeddings[index] = row
                job.num_pending -= 1
                if not job.num_pending:
                    self._end(job)
                    done.append(job)
        for job in done:
            job.on_finished(np.stack([row for row in job.embeddings if row is not None]))

    def _fail(self, run: list[QueueEntry], error: Exception) -> None:
        with self._changed:
            failed = {job.arrival_index: job for _, _, _, job in run if not job.ended}
            for job in failed.values():
                self._end(job)
        for job in failed.values():
            job.on_failed(error)

    def _end(self, job: EmbeddingJob) -> None:
        if job.ended:
            return
        job.ended = True
        self._jobs.pop(job.arrival_index, None)
        if any(order == job.arrival_index for _, order, _, _ in self._queue):
            self._queue = [waiting for waiting in self._queue if waiting[1] != job.arrival_index]
        self._count_waiting()

    def _count_waiting(self) -> None:
        self.stats.texts_waiting = len(self._queue)
