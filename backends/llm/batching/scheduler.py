"""One iteration of continuous batching: prefill chunks of new prompts, then a decode step over all running slots.

The scheduler decides what the model runs next, preempts sequences when the KV cache is full, and ends those that fail.
It does not know which thread drives it, who submitted a request, or how requests are admitted to the queue.
"""

import logging
import time
from collections.abc import Callable

import numpy as np

from backends.llm.batching.model_runner import Logits, ModelRunner
from backends.llm.batching.prefill_scheduler import PrefillScheduler
from backends.llm.batching.sequence import Sequence, SequenceGroup, decode_inputs
from backends.llm.batching.slots import Slots, SlotsCorrupted
from backends.llm.batching.waiting_queue import WaitingQueue
from backends.llm.engine import GenerationFailed
from backends.llm.stats import BatchingStats
from backends.serving.errors import EngineFailed, GenerationError

_log = logging.getLogger(__name__)

_MAX_MASK_WAIT_SECONDS = 0.002
"""Seconds that one decode step waits for late grammar masks, over all slots. A sequence whose mask is still missing
skips the step."""


class Scheduler:
    """Runs the slots of one `ModelRunner`. Only the engine's thread uses it.

    An error in one sequence ends its own request and no other. Every method that moves slots may raise
    `SlotsCorrupted`; only `reset` may be called after it.
    """

    def __init__(
        self,
        runner: ModelRunner,
        waiting: WaitingQueue,
        stats: BatchingStats,
        prefix_cache_bytes: int,
        on_finished: Callable[[SequenceGroup], None],
    ) -> None:
        """`prefix_cache_bytes` limits the prefix cache. `on_finished` is called for each request that has ended,
        before its last event is sent.
        """
        self._runner = runner
        self._waiting = waiting
        self._stats = stats
        self._on_finished = on_finished
        self.slots = Slots(runner)
        self.prefill_scheduler = PrefillScheduler(runner, waiting, stats, prefix_cache_bytes, self._free_memory)

    def run_prefills(self) -> None:
        """Prefill prompts within the time budget of one iteration: one chunk of a long prompt, or several short ones.

        The unit of the budget is the time of one whole chunk, which delays the running sequences.
        """
        budget = 1.0
        while budget > 0 and (sequence := self.prefill_scheduler.select_next(self.slots)):
            try:
                cost, logits = self.prefill_scheduler.prefill_chunk(self.slots, sequence, budget)
                budget -= cost
                if logits is not None:
                    self.slots.start_decoding(sequence)
                    if self._sample(sequence, logits):
                        self.slots.release([sequence])
            except SlotsCorrupted:
                raise
            except Exception as error:
                self.fail(sequence.group, error)

    def update_gauges(self) -> None:
        """Write the current slots and bytes into the engine's stats."""
        self._stats.rows_active = len(self.slots)
        self._stats.row_bytes = self.slots.nbytes
        self._stats.prefix_cache_bytes = self.prefill_scheduler.prefix_cache.nbytes

    def _free_memory(self, growth: Callable[[], int]) -> None:
        """Make room in the KV cache for slots to grow by `growth()` bytes; preemptions may lower that number.

        The prefix cache is evicted first. If that is not enough, the sequence that arrived last is preempted, until the
        rest fits. So the oldest sequence always goes on: one sequence alone always fits.
        """
        capacity = self._runner.kv_cache_bytes
        while (used := self.slots.nbytes + growth()) > capacity and len(self.slots) > 1:
            self._preempt(self.slots.last_arrived())
        self.prefill_scheduler.prefix_cache.evict_to(capacity - used)

    def _preempt(self, sequence: Sequence) -> None:
        """Take a sequence's slot away and put it back at the head of the queue, to be recomputed."""
        entry, length = self.slots.entries[sequence], sequence.length
        self.slots.release([sequence])
        sequence.prepare_recompute()
        entry.mark_preempted(length)
        self._waiting.requeue(entry)
        self._stats.preemptions += 1

    def decode_step(self) -> None:
        """Run one token of every running sequence, and let each choose its next."""
        kv_bytes = self._runner.kv_bytes
        self._free_memory(
            lambda: sum(kv_bytes(sequence.length + 1) - kv_bytes(sequence.length) for sequence in self.slots.running)
        )
        sequences = list(self.slots.running)
        if not sequences:
            return
        self._stats.steps += 1
        tokens, lengths = decode_inputs(sequences)
        try:
            logits = self._runner.decode(tokens, lengths)
        except Exception as error:
            _log.exception("A decode step over %d slots failed; each slot is run alone.", len(sequences))
            self._step_one_by_one(sequences, error)
            return
        # Update all lengths before any slot is released: a release moves the last slot, with all tokens stored in it.
        for sequence in sequences:
            sequence.length += 1
        deadline = time.monotonic() + _MAX_MASK_WAIT_SECONDS
        results = zip(sequences, logits, strict=True)
        self.slots.release([sequence for sequence, row in results if self._sample(sequence, row, deadline)])

    def _step_one_by_one(self, sequences: list[Sequence], error: Exception) -> None:
        """Run each sequence in a step of its own after `error`: those that fail again end, the others go on."""
        if len(sequences) == 1:
            self.fail(sequences[0].group, error)
            return
        for sequence in sequences:
            if sequence.slot < 0:  # another sequence of its group failed in this loop
                continue
            tokens, lengths = decode_inputs([sequence])
            try:
                logits = self._runner.decode(tokens, lengths, sequence.slot)
            except Exception as row_error:
                self.fail(sequence.group, row_error)
            else:
                sequence.length += 1
                if self._sample(sequence, logits[0]):
                    self.slots.release([sequence])

    def _sample(self, sequence: Sequence, logits: Logits, deadline: float = 0.0) -> bool:
        """Let a sequence choose its next token, and send the event. Return true if the caller must release its slot.

        `logits` is float32[vocabulary]. A late grammar mask is awaited until `deadline`, in seconds of the monotonic
        clock.
        """
        group = sequence.group
        if group.finished:  # another sequence of the group failed in this step, and all its slots were released
            return False
        try:
            delta = sequence.sample_next(np.ascontiguousarray(logits), deadline)
        except Exception as error:
            self.fail(group, error)
            return False
        if delta is None:
            return False
        self._stats.tokens_out += delta.num_tokens
        if delta.finish_reason:
            sequence.close()
            group.num_unfinished -= 1
            if group.num_unfinished == 0:  # untracked before the event is sent: its receiver may submit again at once
                group.finished = True
                self._on_finished(group)
        try:
            group.generation.sink(delta)
        except Exception as error:
            _log.exception("An event could not be sent.")
            self.fail(group, error)
        return delta.finish_reason is not None

    def clear_prefix_cache(self) -> None:
        """Free the memory of the prefix cache."""
        self.prefill_scheduler.prefix_cache.clear()
        self.update_gauges()

    def reset(self) -> None:
        """Release every slot and clear the prefix cache, after a fault that left the state unknown. Sends no events."""
        self.prefill_scheduler.prefix_cache.clear()
        for sequence in self.slots:
            sequence.slot = -1
        self.slots = Slots(self._runner)
        for slot in range(self._runner.max_rows):
            try:
                self._runner.release(slot)
            except Exception:  # the next sequence overwrites the slot; only its memory is not given back
                _log.exception("Slot %d could not be released.", slot)

    def fail(self, group: SequenceGroup, error: Exception) -> None:
        """Release the slots of a request, and end it with `error`. A request that has ended gets no second event.

        Raises what the model runner raises while slots are released; the request is ended all the same.
        """
        try:
            self.slots.release([sequence for sequence in self.slots if sequence.group is group])
        finally:
            self.report_failure(group, error)

    def report_failure(self, group: SequenceGroup, error: Exception) -> None:
        """End a request with `error` without touching its slots. A request that has ended gets no second event."""
        if group.finished:
            return
        group.finished = True
        for sequence in group.sequences:
            sequence.close()
        if not isinstance(error, GenerationError):
            _log.error("A generation failed: %s", error, exc_info=error)
            error = EngineFailed(f"The model failed: {str(error)[:500]}")
        self._on_finished(group)
        try:
            group.generation.sink(GenerationFailed(error))
        except Exception:
            _log.exception("A failure could not be sent.")
