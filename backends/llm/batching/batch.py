"""Steps over a forward pass: prompts are read in chunks, running rows advance by a token."""

import logging
from collections.abc import Callable

import numpy as np

from backends.llm.batching.forward import Forward, Logits
from backends.llm.batching.rows import Rows
from backends.llm.batching.sequence import Job, Sequence, batch_inputs
from backends.llm.engine import Failed
from backends.llm.errors import EngineFailed, GenerationError
from backends.llm.figures import Figures

_log = logging.getLogger(__name__)


class Batch:
    """The rows of one forward pass, and everything that happens to them. Used by the engine's thread alone.

    What goes wrong with one sequence ends its job and no other.
    """

    def __init__(self, forward: Forward, figures: Figures, ended: Callable[[Job], None]) -> None:
        """`ended` is told of each job that had its last event."""
        self._forward = forward
        self._figures = figures
        self._ended = ended
        self.rows = Rows(forward)

    def read(self, take: Callable[[], Sequence | None]) -> None:
        """Read prompts for as long as running rows may be held: one chunk of a long one, or several short ones.

        `take` gives the next sequence that waits.
        """
        budget = 1.0
        while budget > 0:
            if self.rows.free and (sequence := take()):
                self.rows.begin(sequence)
            reading = self.rows.reading
            if reading is None:
                return
            try:
                budget -= self._read_chunk(reading, budget)
            except Exception as error:
                self.fail(reading.job, error)

    def _read_chunk(self, sequence: Sequence, budget: float) -> float:
        """Read on in the prompt; the share of a whole chunk that it took."""
        job, prompt = sequence.job, sequence.to_read
        if job.prompt_logits is not None and (twin := self._twin(sequence)):
            self._forward.copy(twin.row, sequence.row, len(prompt))
            sequence.length = len(prompt)
            self._begin_answer(sequence, job.prompt_logits.copy())
            return 0.1
        whole = self._forward.chunk(sequence.length)
        tokens = prompt[sequence.length : sequence.length + whole]
        if budget < 1 and len(tokens) > budget * whole:
            return budget  # it would hold the running rows for longer than a chunk: next time
        logits = self._forward.prefill(sequence.row, tokens, sequence.length)
        sequence.length += len(tokens)
        self._figures.tokens_in += len(tokens)
        if sequence.length == len(prompt):
            if len(job.sequences) > 1 and len(prompt) == len(job.generation.prompt):
                job.prompt_logits = logits.copy()
            self._begin_answer(sequence, logits)
        return max(0.1, len(tokens) / whole)

    def _twin(self, sequence: Sequence) -> Sequence | None:
        """A running sequence of the same job, whose row holds the prompt."""
        whole = len(sequence.to_read)
        return next((other for other in self.rows.running if other.job is sequence.job and other.length >= whole), None)

    def _begin_answer(self, sequence: Sequence, logits: Logits) -> None:
        self.rows.join()
        if self._accept(sequence, logits):
            self.rows.leave([sequence])

    def step(self) -> None:
        """Advance every running row by one token."""
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
        ended = [sequence for sequence, row in zip(sequences, logits, strict=True) if self._accept(sequence, row)]
        self.rows.leave(ended)

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

    def _accept(self, sequence: Sequence, logits: Logits) -> bool:
        """Let a sequence take its next token, and tell it; true where that was its last and its row is to be freed."""
        job = sequence.job
        if job.ended:  # a sibling failed a moment ago, and all rows of the job were freed
            return False
        try:
            delta = sequence.accept(np.ascontiguousarray(logits))
        except Exception as error:
            self.fail(job, error)
            return False
        if delta is None:
            return False
        self._figures.tokens_out += 1
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

    def abandon(self) -> None:
        """Free every row without a word, after a fault that leaves none of them in a known state."""
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
