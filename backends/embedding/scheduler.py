"""One queue for the texts of all requests, and threads that take batches from it."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from backends.embedding.batch_window import choose_batch_window
from backends.embedding.encoder import Embeddings, Encoder, TokenIds
from backends.embedding.stats import Stats

_log = logging.getLogger(__name__)

MAX_PADDING_SHARE = 0.05
"""The share of a batch's tokens that may be padding."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The sizes of batches; the defaults are those of a CPU."""

    max_tokens: int = 512
    """Tokens of one batch, padding included. More are not faster, and requests that arrive meanwhile wait longer."""
    min_tokens: int = 64
    """If few tokens wait, they are split among the threads, but not into batches of fewer tokens than this."""
    max_texts: int = 0
    """Texts of one batch; 0 for any number."""


@dataclass(eq=False, slots=True)
class EmbeddingJob:
    """The texts of one request.

    The scheduler calls `on_finished` once with float32[texts, dimensions], or `on_failed` once, or neither if the job
    is cancelled. Both are called from a scheduler thread and must return at once.
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
"""Number of tokens, the job's `arrival_index`, the index of the text in the job, and the job."""


class EmbeddingScheduler:
    """Threads that each take a batch: the longest text of the job that is next, and waiting texts of similar length.

    Jobs are ordered by fair queueing. Time is counted in embedded tokens, and the next job is that with the lowest
    virtual finish time: the time at which it would be finished had it been alone since its arrival. Small jobs overtake
    a large one, but only those that arrive before as many tokens are embedded as the large one has, so that no job
    starves. Texts of any waiting job may fill a batch.
    """

    def __init__(
        self,
        encoder: Encoder,
        num_threads: int,
        stats: Stats | None = None,
        limits: BatchLimits = BatchLimits(),
    ) -> None:
        """Start `num_threads` threads."""
        self._encoder = encoder
        self._num_threads = num_threads
        self._limits = limits
        self.stats = stats or Stats()
        self._changed = threading.Condition()
        self._queue: list[QueueEntry] = []
        self._jobs: dict[int, EmbeddingJob] = {}
        self._next_index = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run_batches, name=f"embedding-scheduler-{number}", daemon=True)
            for number in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: EmbeddingJob) -> None:
        """Queue a job's texts, each of at least one token. A job that was cancelled before is ignored."""
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
        """Remove a job from the queue; the results of its running texts are discarded."""
        with self._changed:
            self._end(job)

    def close(self) -> None:
        """Let the running batches end, fail every unfinished job, and end the threads."""
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
        while (batch := self._next_batch()) is not None:
            texts = [job.texts[index] for _, _, index, job in batch]
            try:
                embeddings = self._encoder.embed(texts)
            except Exception as error:
                _log.exception("A batch of %d texts failed.", len(batch))
                self._fail(batch, error)
            else:
                self._deliver(batch, embeddings)

    def _next_batch(self) -> list[QueueEntry] | None:
        """Wait for texts and remove a batch of them from the queue; return None once closed."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            _, next_job = min((job.virtual_finish_tokens, arrival) for _, arrival, _, job in self._queue)
            anchor = max(at for at, (_, arrival, _, _) in enumerate(self._queue) if arrival == next_job)
            lengths = [length for length, _, _, _ in self._queue]
            limits = self._limits
            budget = min(limits.max_tokens, max(limits.min_tokens, -(-sum(lengths) // self._num_threads)))
            start, stop = choose_batch_window(lengths, anchor, budget, MAX_PADDING_SHARE, limits.max_texts)
            batch = self._queue[start:stop]
            del self._queue[start:stop]
            self._count_waiting()
            self.stats.runs += 1
            self.stats.texts += len(batch)
            self.stats.tokens += sum(lengths[start:stop])
            self.stats.padding += (stop - start) * lengths[stop - 1] - sum(lengths[start:stop])
            return batch

    def _deliver(self, batch: list[QueueEntry], embeddings: Embeddings) -> None:
        done = []
        with self._changed:
            for (_, _, index, job), embedding in zip(batch, embeddings, strict=True):
                if job.ended:
                    continue
                job.embeddings[index] = embedding
                job.num_pending -= 1
                if not job.num_pending:
                    self._end(job)
                    done.append(job)
        for job in done:
            job.on_finished(np.stack([embedding for embedding in job.embeddings if embedding is not None]))

    def _fail(self, batch: list[QueueEntry], error: Exception) -> None:
        with self._changed:
            failed = {job.arrival_index: job for _, _, _, job in batch if not job.ended}
            for job in failed.values():
                self._end(job)
        for job in failed.values():
            job.on_failed(error)

    def _end(self, job: EmbeddingJob) -> None:
        if job.ended:
            return
        job.ended = True
        self._jobs.pop(job.arrival_index, None)
        if any(arrival == job.arrival_index for _, arrival, _, _ in self._queue):
            self._queue = [entry for entry in self._queue if entry[1] != job.arrival_index]
        self._count_waiting()

    def _count_waiting(self) -> None:
        self.stats.texts_waiting = len(self._queue)
