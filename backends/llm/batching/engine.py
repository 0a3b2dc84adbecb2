"""The engine: a queue in front of a batch, and the thread that drives it."""

import itertools
import logging
import threading

from tokenizers import Tokenizer

from backends.llm.batching.model_runner import ModelRunner
from backends.llm.batching.scheduler import Scheduler
from backends.llm.batching.sequence import Sequence, SequenceGroup
from backends.llm.batching.waiting_queue import QueueEntry, WaitingQueue
from backends.llm.engine import Generation
from backends.llm.stats import Stats
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
        forward: ModelRunner,
        tokenizer: Tokenizer,
        eos: frozenset[int],
        max_waiting: int,
        prefix_cache: int | None = None,
    ) -> None:
        """Take over a forward pass: `close` closes it.

        Up to `prefix_cache` bytes of its memory, a quarter where it is None, keep the keys and values of prompts.
        """
        self.stats = Stats()
        self._runner = forward
        self._tokenizer = tokenizer
        self._eos = eos
        self._max_open = forward.max_rows + max_waiting
        self._groups: dict[Generation, SequenceGroup] = {}
        self._cancelled: list[SequenceGroup] = []
        self._waiting = WaitingQueue(self.stats)
        self._arrival_numbers = itertools.count()
        self._closing = False
        kept = forward.kv_cache_bytes // 4 if prefix_cache is None else prefix_cache
        self._scheduler = Scheduler(forward, self._waiting, self.stats, kept, self._on_finished)
        # Guards the jobs and the queue. The engine's thread never holds it while it computes.
        self._condition = threading.Condition(threading.RLock())
        self._thread = threading.Thread(target=self._run, name="llm-engine", daemon=True)
        self._thread.start()

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together."""
        return self._runner.context_length

    @property
    def vocab_size(self) -> int:
        """Token ids are smaller than this."""
        return self._runner.vocab_size

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
        job = SequenceGroup(generation, num_unfinished=generation.sampling.n)
        job.sequences = [
            Sequence(job, index, tokenizer=self._tokenizer, eos=self._eos, room=room, vocab_size=self.vocab_size)
            for index in range(generation.sampling.n)
        ]
        with self._condition:
            if self._closing:
                raise EngineFailed("The engine is closed.")
            if sum(other.num_unfinished for other in self._groups.values()) + job.num_unfinished > self._max_open:
                raise Overloaded(f"{len(self._waiting)} answers wait already; try again later.")
            self._groups[generation] = job
            for sequence in job.sequences:
                ticket = QueueEntry(sequence, next(self._arrival_numbers), self.stats.tokens_in, self.context_length)
                self._waiting.append(ticket)
            self._condition.notify()

    def cancel(self, generation: Generation) -> None:
        """End a generation: at once where it waits, within a turn where it runs."""
        with self._condition:
            job = self._groups.get(generation)
            if job is None or job.cancelled:
                return
            job.cancelled = True
            self._cancelled.append(job)
            self._waiting.remove_group(job)
            self._condition.notify()

    def close(self) -> None:
        """End all open generations and the thread."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        reason = "The engine is shutting down."
        try:
            while self._wait_for_work():
                try:
                    self._iterate()
                except Exception as error:  # a fault of the engine itself: nothing that runs can be trusted
                    _log.exception("The engine failed, and goes on with new requests.")
                    self._scheduler.reset()
                    self._scheduler.update_gauges()
                    self._fail_all(EngineFailed(f"The engine failed: {str(error)[:500]}"))
        except Exception as error:
            _log.exception("The engine failed while it handled a failure, and is closed.")
            reason = f"The engine failed, and is closed: {str(error)[:500]}"
        with self._condition:
            self._closing = True
        self._fail_all(EngineFailed(reason))
        self._scheduler.clear_prefix_cache()
        self._runner.close()

    def _wait_for_work(self) -> bool:
        with self._condition:
            while not self._closing and not self._groups:
                self._condition.wait()
            return not self._closing

    def _iterate(self) -> None:
        while self._cancelled:
            self._scheduler.fail(self._cancelled.pop(), Cancelled("The request was cancelled."))
        self._scheduler.run_prefills()
        self._scheduler.decode_step()
        self._scheduler.update_gauges()

    def _fail_all(self, error: EngineFailed) -> None:
        with self._condition:
            jobs = list(self._groups.values())
        for job in jobs:
            self._scheduler.report_failure(job, error)

    def _on_finished(self, job: SequenceGroup) -> None:
        with self._condition:
            self._groups.pop(job.generation, None)
            self._waiting.remove_group(job)
            self.stats.rows_active = len(self._scheduler.slots)
