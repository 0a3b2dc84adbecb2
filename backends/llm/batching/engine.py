"""The engine: a queue in front of a batch, and the thread that drives it."""

import itertools
import logging
import threading

from tokenizers import Tokenizer

from backends.llm.batching.batch import Batch
from backends.llm.batching.forward import Forward
from backends.llm.batching.sequence import Job, Sequence
from backends.llm.batching.waiting import Ticket, Waiting
from backends.llm.engine import Generation
from backends.llm.figures import Figures
from backends.serving.errors import Cancelled, ContextLengthExceeded, EngineFailed, InvalidValue, Overloaded

_log = logging.getLogger(__name__)


class BatchingEngine:
    """Continuous batching: `backends.llm.engine.Engine` over a `Forward`.

    One turn of the thread frees the rows of cancelled jobs, reads one chunk of prompts, and advances the running rows
    by a token. So a running answer is never held for longer than about a chunk, and a cancelled one for no
    longer than a turn.
    """

    def __init__(
        self,
        forward: Forward,
        tokenizer: Tokenizer,
        eos: frozenset[int],
        max_waiting: int,
        prefix_cache: int | None = None,
    ) -> None:
        """Take over a forward pass: `close` closes it.

        Up to `prefix_cache` bytes of its memory, a quarter where it is None, keep the keys and values of prompts.
        """
        self.figures = Figures()
        self._forward = forward
        self._tokenizer = tokenizer
        self._eos = eos
        self._max_open = forward.max_rows + max_waiting
        self._jobs: dict[Generation, Job] = {}
        self._cancelled: list[Job] = []
        self._waiting = Waiting(self.figures)
        self._numbers = itertools.count()
        self._closing = False
        kept = forward.kv_memory // 4 if prefix_cache is None else prefix_cache
        self._batch = Batch(forward, self._waiting, self.figures, kept, self._forget)
        # Guards the jobs and the queue. The engine's thread never holds it while it computes.
        self._changed = threading.Condition(threading.RLock())
        self._thread = threading.Thread(target=self._run, name="llm-engine", daemon=True)
        self._thread.start()

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together."""
        return self._forward.context_length

    @property
    def vocab_size(self) -> int:
        """Token ids are smaller than this."""
        return self._forward.vocab_size

    def submit(self, generation: Generation) -> None:
        """Queue a generation. Raises `InvalidValue`, `ContextLengthExceeded`, `Overloaded`, `EngineFailed`."""
        if generation.sampling.n > self._max_open:
            raise InvalidValue(f"This model has room for {self._max_open} answers at once.", "n")
        room = self.context_length - len(generation.prompt)
        if room < 1:
            raise ContextLengthExceeded(
                f"The prompt has {len(generation.prompt)} tokens; the context has room for {self.context_length}, "
                "one of them for the answer.",
                "text_input",
            )
        job = Job(generation, open=generation.sampling.n)
        job.sequences = [
            Sequence(job, index, tokenizer=self._tokenizer, eos=self._eos, room=room, vocab_size=self.vocab_size)
            for index in range(generation.sampling.n)
        ]
        with self._changed:
            if self._closing:
                raise EngineFailed("The engine is closed.")
            if sum(other.open for other in self._jobs.values()) + job.open > self._max_open:
                raise Overloaded(f"{len(self._waiting)} answers wait already; try again later.")
            self._jobs[generation] = job
            for sequence in job.sequences:
                ticket = Ticket(sequence, next(self._numbers), self.figures.tokens_in, self.context_length)
                self._waiting.append(ticket)
            self._changed.notify()

    def cancel(self, generation: Generation) -> None:
        """End a generation: at once where it waits, within a turn where it runs."""
        with self._changed:
            job = self._jobs.get(generation)
            if job is None or job.cancelled:
                return
            job.cancelled = True
            self._cancelled.append(job)
            self._waiting.drop(job)
            self._changed.notify()

    def close(self) -> None:
        """End all open generations and the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        reason = "The engine is shutting down."
        try:
            while self._wait_for_work():
                try:
                    self._turn()
                except Exception as error:  # a fault of the engine itself: nothing that runs can be trusted
                    _log.exception("The engine failed, and goes on with new requests.")
                    self._batch.abandon()
                    self._batch.count()
                    self._fail_all(EngineFailed(f"The engine failed: {str(error)[:500]}"))
        except Exception as error:
            _log.exception("The engine failed while it handled a failure, and is closed.")
            reason = f"The engine failed, and is closed: {str(error)[:500]}"
        with self._changed:
            self._closing = True
        self._fail_all(EngineFailed(reason))
        self._batch.forget()
        self._forward.close()

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not self._closing and not self._jobs:
                self._changed.wait()
            return not self._closing

    def _turn(self) -> None:
        while self._cancelled:
            self._batch.fail(self._cancelled.pop(), Cancelled("The request was cancelled."))
        self._batch.read()
        self._batch.step()
        self._batch.count()

    def _fail_all(self, error: EngineFailed) -> None:
        with self._changed:
            jobs = list(self._jobs.values())
        for job in jobs:
            self._batch.tell(job, error)

    def _forget(self, job: Job) -> None:
        with self._changed:
            self._jobs.pop(job.generation, None)
            self._waiting.drop(job)
            self.figures.rows_active = len(self._batch.rows)
