"""Reading prompts: whose chunk is next, and what need not be computed because it was before."""

import logging
from collections.abc import Callable

from backends.llm.batching.model_runner import Logits, ModelRunner
from backends.llm.batching.prefix_cache import PrefixCache, hash_block
from backends.llm.batching.sequence import Sequence
from backends.llm.batching.slots import Slots
from backends.llm.batching.waiting_queue import QueueEntry, WaitingQueue
from backends.llm.engine import TokenIds
from backends.llm.stats import Stats

_log = logging.getLogger(__name__)

# Keys and values are copied at least so many times as fast as they are computed: 40 times for 135 million parameters,
# most of it the system's making of pages, and more for more.
_COPY_COST = 1 / 32
# Any chunk, however short, counts as so much of a whole one.
_MIN_CHUNK_COST = 0.1


class PrefillScheduler:
    """The sequences whose prompts are on their way, a chunk at a time. Used by the engine's thread alone.

    Prompts are cut by position alone, so a chunk that was read once can be copied wherever it is met again, and the
    answer is the same to the bit. What steps compute goes through other kernels, and is never kept.
    """

    def __init__(
        self,
        forward: ModelRunner,
        waiting: WaitingQueue,
        figures: Stats,
        prefix_cache: int,
        make_room: Callable[[Callable[[], int]], None],
    ) -> None:
        """Keep up to `prefix_cache` bytes. `make_room` is told by how many bytes rows grow, and may take any away."""
        self._runner = forward
        self._waiting = waiting
        self._stats = figures
        self._prefix_cache_bytes = prefix_cache
        self._free_memory = make_room
        self.prefix_cache = PrefixCache()

    def select_next(self, rows: Slots) -> Sequence | None:
        """Whose chunk is to be read; a sequence that waits is given a row if it is its turn and there is memory."""
        first = min(
            (rows.entries[sequence] for sequence in rows.prefilling), key=lambda one: one.priority, default=None
        )
        ticket = None
        if rows.num_free and len(self._waiting):
            ticket = self._waiting.select_next(
                rows.num_free, rows.slots_per_group(), {sequence.group for sequence in rows.prefilling}
            )
        if ticket and (first is None or ticket.priority < first.priority) and self._admit(rows, ticket):
            return ticket.sequence
        return first.sequence if first else None

    def _admit(self, rows: Slots, ticket: QueueEntry) -> bool:
        # Whoever is next and does not fit is waited for: were smaller ones let past, it might wait for ever.
        wanted = self._runner.kv_bytes(ticket.reserved_tokens)
        if len(rows) and rows.reserved_bytes + wanted > self._runner.kv_cache_bytes:
            return False
        if not self._waiting.remove(ticket):
            return False
        rows.assign(ticket)
        return True

    def prefill_chunk(self, rows: Slots, sequence: Sequence, budget: float) -> tuple[float, Logits | None]:
        """Read on in a prompt: the share of a whole chunk's time that it took, and the logits behind the last token.

        Nothing is read where it would take more than `budget`, or where the sequence lost its row.
        """
        ticket, past = rows.entries[sequence], sequence.length
        whole = self._runner.chunk_size(past)
        part = sequence.prefill_tokens[past : past + whole]
        stop = past + len(part)
        last = stop == len(sequence.prefill_tokens)
        share = len(part) / whole
        grown = self._runner.kv_bytes(stop) - self._runner.kv_bytes(past)
        self._free_memory(lambda: grown if sequence.slot >= 0 else 0)
        if sequence.slot < 0:
            return _MIN_CHUNK_COST, None
        name = hash_block(ticket.prefix_hash, part)
        found, logits = self._reuse_chunk(rows, sequence, stop, name, last)
        if found:
            share *= _COPY_COST
        elif budget < 1 and share > budget:
            return budget, None  # it would hold the running rows for longer than a chunk: next time
        else:
            logits = self._compute_chunk(rows, sequence, part, name, last)
        sequence.length = stop
        ticket.prefix_hash = name
        if not last:
            return max(_MIN_CHUNK_COST * (_COPY_COST if found else 1), share), None
        assert logits is not None
        if len(sequence.group.sequences) > 1 and stop == len(sequence.group.generation.prompt):
            sequence.group.prompt_logits = logits.copy()
        return max(_MIN_CHUNK_COST, share), logits

    def _reuse_chunk(
        self, rows: Slots, sequence: Sequence, stop: int, name: bytes, last: bool
    ) -> tuple[bool, Logits | None]:
        """Find the next chunk in the row of another answer of the same job, or among what was kept."""
        job, past = sequence.group, sequence.length
        whole = len(sequence.prefill_tokens)
        if job.prompt_logits is not None and whole == len(job.generation.prompt):
            twin = next((other for other in rows.running if other.group is job and other.length >= whole), None)
            if twin:
                self._runner.copy(twin.slot, sequence.slot, past, stop)
                return True, job.prompt_logits.copy()
        part = self.prefix_cache.get(name)
        if part is None or (last and part.logits is None):
            return False, None
        self._runner.load(sequence.slot, past, part.saved)
        self._stats.prefix_tokens_reused += stop - past
        return True, None if part.logits is None else part.logits.copy()

    def _compute_chunk(self, rows: Slots, sequence: Sequence, part: TokenIds, name: bytes, last: bool) -> Logits:
        past = sequence.length
        logits = self._runner.prefill(sequence.slot, part, past)
        self._stats.tokens_in += len(part)
        try:
            self._cache_chunk(rows, sequence, len(part), name, logits if last else None)
        except Exception:  # the answer is not the worse for it
            _log.exception("What was read could not be kept.")
        return logits

    def _cache_chunk(self, rows: Slots, sequence: Sequence, count: int, name: bytes, logits: Logits | None) -> None:
        """Keep a copy of a chunk of so many tokens that was just read, where there is room."""
        past, before = sequence.length, rows.entries[sequence].prefix_hash
        stop = past + count
        if past and before not in self.prefix_cache:  # nobody would get as far as this
            return
        taken = rows.nbytes + self._runner.kv_bytes(stop) - self._runner.kv_bytes(past)
        wanted = self._runner.kv_bytes(count) + (0 if logits is None else logits.nbytes)
        room = min(self._prefix_cache_bytes, self._runner.kv_cache_bytes - taken) - wanted
        if self._prefix_cache_bytes and room >= 0 and self.prefix_cache.evict_to(room, keep=before):
            saved = self._runner.save(sequence.slot, past, stop)
            self.prefix_cache.put(name, before, saved, None if logits is None else logits.copy())
