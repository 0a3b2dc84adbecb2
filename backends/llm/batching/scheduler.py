"""Steps over a forward pass: prompts are read in chunks, running rows advance by a token."""

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
from backends.llm.stats import Stats
from backends.serving.errors import EngineFailed, GenerationError

_log = logging.getLogger(__name__)

# Seconds for which all rows whose masks are late hold the others together; then they sit the step out.
_MAX_MASK_WAIT_SECONDS = 0.002


class Scheduler:
    """The rows of one forward pass, and everything that happens to them. Used by the engine's thread alone.

    What goes wrong with one sequence ends its job and no other. `RowsLost` comes out of any method that moves rows:
    nothing but `abandon` may be called then.
    """

    def __init__(
        self,
        forward: ModelRunner,
        waiting: WaitingQueue,
        figures: Stats,
        prefix_cache: int,
        ended: Callable[[SequenceGroup], None],
    ) -> None:
        """Keep up to `prefix_cache` bytes of prompts; `ended` is told of each job that had its last event."""
        self._runner = forward
        self._waiting = waiting
        self._stats = figures
        self._on_finished = ended
        self.slots = Slots(forward)
        self.prefill_scheduler = PrefillScheduler(forward, waiting, figures, prefix_cache, self._free_memory)

    def run_prefills(self) -> None:
        """Read prompts for as long as running rows may be held: one chunk of a long one, or several short ones."""
        budget = 1.0
        while budget > 0 and (sequence := self.prefill_scheduler.select_next(self.slots)):
            try:
                share, logits = self.prefill_scheduler.prefill_chunk(self.slots, sequence, budget)
                budget -= share
                if logits is not None:
                    self.slots.start_decoding(sequence)
                    if self._sample(sequence, logits):
                        self.slots.release([sequence])
            except SlotsCorrupted:
                raise
            except Exception as error:
                self.fail(sequence.group, error)

    def update_gauges(self) -> None:
        """Bring the gauges up to date."""
        self._stats.rows_active = len(self.slots)
        self._stats.row_bytes = self.slots.nbytes
        self._stats.prefix_cache_bytes = self.prefill_scheduler.prefix_cache.nbytes

    def _free_memory(self, growth: Callable[[], int]) -> None:
        """See to it that the rows may grow by so many bytes, which may become fewer as rows are taken away.

        First what was kept of prompts goes, then the row of the youngest sequence, which begins again when there is
        room: the oldest always goes on, and alone it always fits.
        """
        room = self._runner.kv_cache_bytes
        while (taken := self.slots.nbytes + growth()) > room and len(self.slots) > 1:
            self._preempt(self.slots.last_arrived())
        self.prefill_scheduler.prefix_cache.evict_to(room - taken)

    def _preempt(self, sequence: Sequence) -> None:
        ticket, length = self.slots.entries[sequence], sequence.length
        self.slots.release([sequence])
        sequence.prepare_recompute()
        ticket.mark_preempted(length)
        self._waiting.requeue(ticket)
        self._stats.preemptions += 1

    def decode_step(self) -> None:
        """Advance every running row by one token."""
        grown = self._runner.kv_bytes
        self._free_memory(lambda: sum(grown(one.length + 1) - grown(one.length) for one in self.slots.running))
        sequences = list(self.slots.running)
        if not sequences:
            return
        self._stats.steps += 1
        tokens, lengths = decode_inputs(sequences)
        try:
            logits = self._runner.decode(tokens, lengths)
        except Exception as error:
            _log.exception("A step over %d rows failed; each row is run alone.", len(sequences))
            self._step_one_by_one(sequences, error)
            return
        # All lengths before any answer: an answer that ends has the last row moved, with all that is stored in it.
        for sequence in sequences:
            sequence.length += 1
        deadline = time.monotonic() + _MAX_MASK_WAIT_SECONDS
        rows = zip(sequences, logits, strict=True)
        self.slots.release([sequence for sequence, row in rows if self._sample(sequence, row, deadline)])

    def _step_one_by_one(self, sequences: list[Sequence], error: Exception) -> None:
        """Find the rows at fault; rows that can go on do so."""
        if len(sequences) == 1:
            self.fail(sequences[0].group, error)
            return
        for sequence in sequences:
            if sequence.slot < 0:  # its job failed a moment ago
                continue
            tokens, lengths = decode_inputs([sequence])
            try:
                logits = self._runner.decode(tokens, lengths, sequence.slot)
            except Exception as alone:
                self.fail(sequence.group, alone)
            else:
                sequence.length += 1
                if self._sample(sequence, logits[0]):
                    self.slots.release([sequence])

    def _sample(self, sequence: Sequence, logits: Logits, deadline: float = 0.0) -> bool:
        """Let a sequence take its next token, and tell it; true where that was its last and its row is to be freed.

        A mask that is late is waited for until `deadline`, by the monotonic clock.
        """
        job = sequence.group
        if job.finished:  # a sibling failed a moment ago, and all rows of the job were freed
            return False
        try:
            delta = sequence.sample_next(np.ascontiguousarray(logits), deadline)
        except Exception as error:
            self.fail(job, error)
            return False
        if delta is None:
            return False
        self._stats.tokens_out += delta.num_tokens
        if delta.finish_reason:
            job.num_unfinished -= 1
            if job.num_unfinished == 0:  # forgotten before it is told, so that whoever hears of it may submit again
                job.finished = True
                self._on_finished(job)
        try:
            job.generation.sink(delta)
        except Exception as error:
            _log.exception("An event could not be told.")
            self.fail(job, error)
        return delta.finish_reason is not None

    def clear_prefix_cache(self) -> None:
        """Give back what was kept of prompts."""
        self.prefill_scheduler.prefix_cache.clear()
        self.update_gauges()

    def reset(self) -> None:
        """Free every row without a word, after a fault that leaves nothing in a known state; forget what was kept."""
        self.prefill_scheduler.prefix_cache.clear()
        for sequence in self.slots:
            sequence.slot = -1
        self.slots = Slots(self._runner)
        for row in range(self._runner.max_rows):
            try:
                self._runner.release(row)
            except Exception:  # what is left in a row is overwritten; only its memory is not given back
                _log.exception("Row %d could not be freed.", row)

    def fail(self, job: SequenceGroup, error: Exception) -> None:
        """Free the rows of a job, end it and say why; one that has ended already is told nothing.

        Raises what the forward pass raises while rows are freed; the job is ended and told all the same.
        """
        try:
            self.slots.release([sequence for sequence in self.slots if sequence.group is job])
        finally:
            self.report_failure(job, error)

    def report_failure(self, job: SequenceGroup, error: Exception) -> None:
        """End a job and say why, whatever has become of its rows; a job that has ended is left alone."""
        if job.finished:
            return
        job.finished = True
        if not isinstance(error, GenerationError):
            _log.error("A generation failed: %s", error, exc_info=error)
            error = EngineFailed(f"The model failed: {str(error)[:500]}")
        self._on_finished(job)
        try:
            job.generation.sink(GenerationFailed(error))
        except Exception:
            _log.exception("A failure could not be told.")
