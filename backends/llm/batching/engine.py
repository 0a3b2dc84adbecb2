"""The continuous-batching engine: it accepts generations from any thread and runs them all in one thread of its own.

The life of a generation:

1. `BatchingEngine.submit` checks it against the context and the queue limits, and appends its sequences to the
   `WaitingQueue`.
2. `PrefillScheduler.select_next` gives the next sequence a slot, as soon as a slot and KV-cache memory are free.
3. `Scheduler.run_prefills` computes the prompt chunk by chunk, or copies chunks from the prefix cache.
4. `Scheduler.decode_step` adds one token to every running sequence. `Sequence.sample_next` chooses it and makes text.
5. Each token goes to the generation's sink as a `Delta`. The last `Delta` of a sequence has a finish reason, and its
   slot is released.

If memory runs out, `Scheduler` preempts the sequence that arrived last: it releases the slot and requeues the
sequence, whose tokens are recomputed later.

The engine knows neither tensors nor clients, and no model: `ModelRunner` runs it.
"""

import itertools
import logging
import threading

from tokenizers import Tokenizer

from backends.llm.batching.model_runner import ModelRunner
from backends.llm.batching.scheduler import Scheduler
from backends.llm.batching.sequence import Sequence, SequenceGroup
from backends.llm.batching.waiting_queue import QueueEntry, WaitingQueue
from backends.llm.engine import Generation, StructureEnforcement
from backends.llm.stats import BatchingStats
from backends.serving.errors import Cancelled, ContextLengthExceeded, EngineFailed, InvalidValue, Overloaded

_log = logging.getLogger(__name__)


class BatchingEngine:
    """`backends.llm.engine.Engine` with continuous batching over a `ModelRunner`.

    One iteration of the thread releases the slots of cancelled requests, prefills about one chunk of prompts, and runs
    one decode step. So prefills delay a running sequence by about one chunk at most, and a cancelled sequence stops
    within one iteration.
    """

    structure_enforcement: StructureEnforcement = "matcher"
    adapters: frozenset[str] = frozenset()

    def __init__(
        self,
        runner: ModelRunner,
        tokenizer: Tokenizer,
        eos: frozenset[int],
        max_waiting: int,
        prefix_cache_bytes: int | None = None,
    ) -> None:
        """Start the engine's thread. The engine owns `runner`, and `close` closes it.

        `eos` are the token ids that end a sequence. Up to `max_waiting` sequences wait beyond those that have a slot.
        The prefix cache takes up to `prefix_cache_bytes` of the runner's KV-cache memory; None means a quarter of it.
        """
        self.stats = BatchingStats()
        self._runner = runner
        self._tokenizer = tokenizer
        self._eos = eos
        self._max_open = runner.max_rows + max_waiting
        self._groups: dict[Generation, SequenceGroup] = {}
        self._cancelled: list[SequenceGroup] = []
        self._waiting = WaitingQueue(self.stats)
        self._arrival_numbers = itertools.count()
        self._closing = False
        prefix_cache_bytes = runner.kv_cache_bytes // 4 if prefix_cache_bytes is None else prefix_cache_bytes
        self._scheduler = Scheduler(runner, self._waiting, self.stats, prefix_cache_bytes, self._on_finished)
        # Guards the groups and the queue. The engine's thread never holds it while it computes.
        self._condition = threading.Condition(threading.RLock())
        self._thread = threading.Thread(target=self._run, name="llm-engine", daemon=True)
        self._thread.start()

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of a prompt and its answer together."""
        return self._runner.context_length

    @property
    def vocab_size(self) -> int:
        """Number of token ids: each is smaller than this."""
        return self._runner.vocab_size

    def submit(self, generation: Generation) -> None:
        """Queue a generation.

        Raises `InvalidValue` for more answers than the engine can ever hold, `ContextLengthExceeded` for a prompt that
        leaves no room for an answer, `Overloaded` if the queue is full, and `EngineFailed` if the engine is closed.
        """
        if generation.sampling.n > self._max_open:
            raise InvalidValue(f"This model has room for {self._max_open} answers at once.", "n")
        max_new_tokens = self.context_length - len(generation.prompt)
        if max_new_tokens < 1:
            raise ContextLengthExceeded(
                f"The prompt has {len(generation.prompt)} tokens; the context has room for {self.context_length}, "
                "one of them for the answer.",
                "text_input",
            )
        group = SequenceGroup(generation, num_unfinished=generation.sampling.n)
        group.sequences = [
            Sequence(
                group,
                index,
                tokenizer=self._tokenizer,
                eos=self._eos,
                max_new_tokens=max_new_tokens,
                vocab_size=self.vocab_size,
            )
            for index in range(generation.sampling.n)
        ]
        with self._condition:
            if self._closing:
                raise EngineFailed("The engine is closed.")
            if sum(other.num_unfinished for other in self._groups.values()) + group.num_unfinished > self._max_open:
                raise Overloaded(f"{len(self._waiting)} answers wait already; try again later.")
            self._groups[generation] = group
            for sequence in group.sequences:
                entry = QueueEntry(sequence, next(self._arrival_numbers), self.stats.tokens_in, self.context_length)
                self._waiting.append(entry)
            self._condition.notify()

    def cancel(self, generation: Generation) -> None:
        """End a generation: its waiting sequences leave the queue now, its running ones stop within one iteration."""
        with self._condition:
            group = self._groups.get(generation)
            if group is None or group.cancelled:
                return
            group.cancelled = True
            self._cancelled.append(group)
            self._waiting.remove_group(group)
            self._condition.notify()

    def close(self) -> None:
        """Fail all open generations with `EngineFailed`, and end the thread."""
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
                except Exception as error:  # the engine's own state is unknown: no running sequence can be trusted
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
            groups = list(self._groups.values())
        for group in groups:
            self._scheduler.report_failure(group, error)

    def _on_finished(self, group: SequenceGroup) -> None:
        with self._condition:
            self._groups.pop(group.generation, None)
            self._waiting.remove_group(group)
            self.stats.rows_active = len(self._scheduler.slots)
