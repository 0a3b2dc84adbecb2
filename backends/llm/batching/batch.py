"""Steps over a forward pass: prompts are read in chunks, running rows advance by a token."""

import logging
import time
from collections.abc import Callable

import numpy as np

from backends.llm.batching.forward import Forward, Logits
from backends.llm.batching.reading import Reading
from backends.llm.batching.rows import Rows, RowsLost
from backends.llm.batching.sequence import Job, Sequence, batch_inputs
from backends.llm.batching.waiting import Waiting
from backends.llm.engine import Failed
from backends.llm.figures import Figures
from backends.serving.errors import EngineFailed, GenerationError

_log = logging.getLogger(__name__)

# Seconds for which all rows whose masks are late hold the others together; then they sit the step out.
_PATIENCE = 0.002


class Batch:
    """The rows of one forward pass, and everything that happens to them. Used by the engine's thread alone.

    What goes wrong with one sequence ends its job and no other. `RowsLost` comes out of any method that moves rows:
    nothing but `abandon` may be called then.
    """

    def __init__(
        self, forward: Forward, waiting: Waiting, figures: Figures, prefix_cache: int, ended: Callable[[Job], None]
    ) -> None:
        """Keep up to `prefix_cache` bytes of prompts; `ended` is told of each job that had its last event."""
        self._forward = forward
        self._waiting = waiting
        self._figures = figures
        self._ended = ended
        self.rows = Rows(forward)
        self.reading = Reading(forward, waiting, figures, prefix_cache, self._make_room)

    def read(self) -> None:
        """Read prompts for as long as running rows may be held: one chunk of a long one, or several short ones."""
        budget = 1.0
        while budget > 0 and (sequence := self.reading.next(self.rows)):
            try:
                share, logits = self.reading.read_chunk(self.rows, sequence, budget)
                budget -= share
                if logits is not None:
                    self.rows.join(sequence)
                    if self._accept(sequence, logits):
                        self.rows.leave([sequence])
            except RowsLost:
                raise
            except Exception as error:
                self.fail(sequence.job, error)

    def count(self) -> None:
        """Bring the gauges up to date."""
        self._figures.rows_active = len(self.rows)
        self._figures.row_bytes = self.rows.nbytes
        self._figures.prefix_cache_bytes = self.reading.prefixes.nbytes

    def _make_room(self, growth: Callable[[], int]) -> None:
        """See to it that the rows may grow by so many bytes, which may become fewer as rows are taken away.

        First what was kept of prompts goes, then the row of the youngest sequence, which begins again when there is
        room: the oldest always goes on, and alone it always fits.
        """
        room = self._forward.kv_memory
        while (taken := self.rows.nbytes + growth()) > room and len(self.rows) > 1:
            self._take_row(self.rows.youngest())
        self.reading.prefixes.shrink(room - taken)

    def _take_row(self, sequence: Sequence) -> None:
        ticket, length = self.rows.tickets[sequence], sequence.length
        self.rows.leave([sequence])
        sequence.restart()
        ticket.lost(length)
        self._waiting.put_back(ticket)
        self._figures.preemptions += 1

    def step(self) -> None:
        """Advance every running row by one token."""
        grown = self._forward.row_bytes
        self._make_room(lambda: sum(grown(one.length + 1) - grown(one.length) for one in self.rows.running))
        sequences = list(self.rows.running)
        if not sequences:
            return
        self._figures.steps += 1
        tokens, lengths = batch_inputs(sequences)
        try:
            logits = self._forward.decode(tokens, lengths)
        except Exception as error:
            _log.exception("A step over %d rows failed; each row is run alone.", len(sequences))
            self._step_alone(sequences, error)
            return
        # All lengths before any answer: an answer that ends has the last row moved, with all that is stored in it.
        for sequence in sequences:
            sequence.length += 1
        deadline = time.monotonic() + _PATIENCE
        rows = zip(sequences, logits, strict=True)
        self.rows.leave([sequence for sequence, row in rows if self._accept(sequence, row, deadline)])

    def _step_alone(self, sequences: list[Sequence], error: Exception) -> None:
        """Find the rows at fault; rows that can go on do so."""
        if len(sequences) == 1:
            self.fail(sequences[0].job, error)
            return
        for sequence in sequences:
            if sequence.row < 0:  # its job failed a moment ago
                continue
            tokens, lengths = batch_inputs([sequence])
            try:
                logits = self._forward.decode(tokens, lengths, sequence.row)
            except Exception as alone:
                self.fail(sequence.job, alone)
            else:
                sequence.length += 1
                if self._accept(sequence, logits[0]):
                    self.rows.leave([sequence])

    def _accept(self, sequence: Sequence, logits: Logits, deadline: float = 0.0) -> bool:
        """Let a sequence take its next token, and tell it; true where that was its last and its row is to be freed.

        A mask that is late is waited for until `deadline`, by the monotonic clock.
        """
        job = sequence.job
        if job.ended:  # a sibling failed a moment ago, and all rows of the job were freed
            return False
        try:
            delta = sequence.accept(np.ascontiguousarray(logits), deadline)
        except Exception as error:
            self.fail(job, error)
            return False
        if delta is None:
            return False
        self._figures.tokens_out += delta.num_tokens
        if delta.finish_reason:
            job.open -= 1
            if job.open == 0:  # forgotten before it is told, so that whoever hears of it may submit again
                job.ended = True
                self._ended(job)
        try:
            job.generation.sink(delta)
        except Exception as error:
            _log.exception("An event could not be told.")
            self.fail(job, error)
        return delta.finish_reason is not None

    def forget(self) -> None:
        """Give back what was kept of prompts."""
        self.reading.prefixes.clear()
        self.count()

    def abandon(self) -> None:
        """Free every row without a word, after a fault that leaves nothing in a known state; forget what was kept."""
        self.reading.prefixes.clear()
        for sequence in self.rows:
            sequence.row = -1
        self.rows = Rows(self._forward)
        for row in range(self._forward.max_rows):
            try:
                self._forward.release(row)
            except Exception:  # what is left in a row is overwritten; only its memory is not given back
                _log.exception("Row %d could not be freed.", row)

    def fail(self, job: Job, error: Exception) -> None:
        """Free the rows of a job, end it and say why; one that has ended already is told nothing.

        Raises what the forward pass raises while rows are freed; the job is ended and told all the same.
        """
        try:
            self.rows.leave([sequence for sequence in self.rows if sequence.job is job])
        finally:
            self.tell(job, error)

    def tell(self, job: Job, error: Exception) -> None:
        """End a job and say why, whatever has become of its rows; a job that has ended is left alone."""
        if job.ended:
            return
        job.ended = True
        if not isinstance(error, GenerationError):
            _log.error("A generation failed: %s", error, exc_info=error)
            error = EngineFailed(f"The model failed: {str(error)[:500]}")
        self._ended(job)
        try:
            job.generation.sink(Failed(error))
        except Exception:
            _log.exception("A failure could not be told.")
