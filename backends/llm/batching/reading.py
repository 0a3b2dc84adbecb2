"""Reading prompts: whose chunk is next, and what need not be computed because it was before."""

import logging
from collections.abc import Callable

from backends.llm.batching.forward import Forward, Logits
from backends.llm.batching.prefixes import Prefixes, chain
from backends.llm.batching.rows import Rows
from backends.llm.batching.sequence import Sequence
from backends.llm.batching.waiting import Ticket, Waiting
from backends.llm.engine import Tokens
from backends.llm.figures import Figures

_log = logging.getLogger(__name__)

# Keys and values are copied at least so many times as fast as they are computed: 40 times for 135 million parameters,
# most of it the system's making of pages, and more for more.
_COPY = 1 / 32
# Any chunk, however short, counts as so much of a whole one.
_LEAST = 0.1


class Reading:
    """The sequences whose prompts are on their way, a chunk at a time. Used by the engine's thread alone.

    Prompts are cut by position alone, so a chunk that was read once can be copied wherever it is met again, and the
    answer is the same to the bit. What steps compute goes through other kernels, and is never kept.
    """

    def __init__(
        self,
        forward: Forward,
        waiting: Waiting,
        figures: Figures,
        prefix_cache: int,
        make_room: Callable[[Callable[[], int]], None],
    ) -> None:
        """Keep up to `prefix_cache` bytes. `make_room` is told by how many bytes rows grow, and may take any away."""
        self._forward = forward
        self._waiting = waiting
        self._figures = figures
        self._limit = prefix_cache
        self._make_room = make_room
        self.prefixes = Prefixes()

    def next(self, rows: Rows) -> Sequence | None:
        """Whose chunk is to be read; a sequence that waits is given a row if it is its turn and there is memory."""
        first = min((rows.tickets[sequence] for sequence in rows.reading), key=lambda one: one.turn, default=None)
        ticket = None
        if rows.free and len(self._waiting):
            ticket = self._waiting.next(rows.free, rows.held(), {sequence.job for sequence in rows.reading})
        if ticket and (first is None or ticket.turn < first.turn) and self._admit(rows, ticket):
            return ticket.sequence
        return first.sequence if first else None

    def _admit(self, rows: Rows, ticket: Ticket) -> bool:
        # Whoever is next and does not fit is waited for: were smaller ones let past, it might wait for ever.
        wanted = self._forward.row_bytes(ticket.tokens)
        if len(rows) and rows.promised + wanted > self._forward.kv_memory:
            return False
        if not self._waiting.take(ticket):
            return False
        rows.begin(ticket)
        return True

    def read_chunk(self, rows: Rows, sequence: Sequence, budget: float) -> tuple[float, Logits | None]:
        """Read on in a prompt: the share of a whole chunk's time that it took, and the logits behind the last token.

        Nothing is read where it would take more than `budget`, or where the sequence lost its row.
        """
        ticket, past = rows.tickets[sequence], sequence.length
        whole = self._forward.chunk(past)
        part = sequence.to_read[past : past + whole]
        stop = past + len(part)
        last = stop == len(sequence.to_read)
        share = len(part) / whole
        grown = self._forward.row_bytes(stop) - self._forward.row_bytes(past)
        self._make_room(lambda: grown if sequence.row >= 0 else 0)
        if sequence.row < 0:
            return _LEAST, None
        name = chain(ticket.digest, part)
        found, logits = self._copy(rows, sequence, stop, name, last)
        if found:
            share *= _COPY
        elif budget < 1 and share > budget:
            return budget, None  # it would hold the running rows for longer than a chunk: next time
        else:
            logits = self._compute(rows, sequence, part, name, last)
        sequence.length = stop
        ticket.digest = name
        if not last:
            return max(_LEAST * (_COPY if found else 1), share), None
        assert logits is not None
        if len(sequence.job.sequences) > 1 and stop == len(sequence.job.generation.prompt):
            sequence.job.prompt_logits = logits.copy()
        return max(_LEAST, share), logits

    def _copy(self, rows: Rows, sequence: Sequence, stop: int, name: bytes, last: bool) -> tuple[bool, Logits | None]:
        """Find the next chunk in the row of another answer of the same job, or among what was kept."""
        job, past = sequence.job, sequence.length
        whole = len(sequence.to_read)
        if job.prompt_logits is not None and whole == len(job.generation.prompt):
            twin = next((other for other in rows.running if other.job is job and other.length >= whole), None)
            if twin:
                self._forward.copy(twin.row, sequence.row, past, stop)
                return True, job.prompt_logits.copy()
        part = self.prefixes.get(name)
        if part is None or (last and part.logits is None):
            return False, None
        self._forward.load(sequence.row, past, part.saved)
        self._figures.prefix_tokens_reused += stop - past
        return True, None if part.logits is None else part.logits.copy()

    def _compute(self, rows: Rows, sequence: Sequence, part: Tokens, name: bytes, last: bool) -> Logits:
        past = sequence.length
        logits = self._forward.prefill(sequence.row, part, past)
        self._figures.tokens_in += len(part)
        try:
            self._keep(rows, sequence, len(part), name, logits if last else None)
        except Exception:  # the answer is not the worse for it
            _log.exception("What was read could not be kept.")
        return logits

    def _keep(self, rows: Rows, sequence: Sequence, count: int, name: bytes, logits: Logits | None) -> None:
        """Keep a copy of a chunk of so many tokens that was just read, where there is room."""
        past, before = sequence.length, rows.tickets[sequence].digest
        stop = past + count
        if past and before not in self.prefixes:  # nobody would get as far as this
            return
        taken = rows.nbytes + self._forward.row_bytes(stop) - self._forward.row_bytes(past)
        wanted = self._forward.row_bytes(count) + (0 if logits is None else logits.nbytes)
        room = min(self._limit, self._forward.kv_memory - taken) - wanted
        if self._limit and room >= 0 and self.prefixes.shrink(room, keep=before):
            saved = self._forward.save(sequence.row, past, stop)
            self.prefixes.put(name, before, saved, None if logits is None else logits.copy())
