"""Prefill in chunks: admission of waiting sequences, the order of chunks, and reuse of chunks from the prefix cache.

The prefill scheduler fills the KV cache with prompts. It does not sample: the logits of a prompt's last token go back
to the `Scheduler`.
"""

import logging
from collections.abc import Callable

from backends.llm.batching.model_runner import Logits, ModelRunner
from backends.llm.batching.prefix_cache import PrefixCache, hash_block
from backends.llm.batching.sequence import Sequence
from backends.llm.batching.slots import Slots
from backends.llm.batching.waiting_queue import QueueEntry, WaitingQueue
from backends.llm.engine import TokenIds
from backends.llm.stats import BatchingStats

_log = logging.getLogger(__name__)

_COPY_COST = 1 / 32
"""Cost of copying a chunk of keys and values, relative to computing it. A model of 135 million parameters copies 40
times as fast as it computes, with most of the time spent by the system on new pages; larger models gain more."""
_MIN_CHUNK_COST = 0.1
"""Cost of the shortest chunk, relative to a whole one."""


class PrefillScheduler:
    """Prefills the sequences in `Slots.prefilling`, one chunk per call. Only the engine's thread uses it.

    Prompts are cut by position alone. So a chunk that was computed once can be copied into any other prompt with the
    same prefix, and the answer is the same to the bit. Decode steps use other kernels; their keys and values are never
    cached.
    """

    def __init__(
        self,
        runner: ModelRunner,
        waiting: WaitingQueue,
        stats: BatchingStats,
        prefix_cache_bytes: int,
        free_memory: Callable[[Callable[[], int]], None],
    ) -> None:
        """`prefix_cache_bytes` limits the prefix cache. `free_memory` is called with a function that returns by how
        many bytes the slots are about to grow. It may preempt any sequence, the one being prefilled included.
        """
        self._runner = runner
        self._waiting = waiting
        self._stats = stats
        self._prefix_cache_bytes = prefix_cache_bytes
        self._free_memory = free_memory
        self.prefix_cache = PrefixCache()

    def select_next(self, slots: Slots) -> Sequence | None:
        """Return the sequence whose chunk is next, or None.

        A waiting sequence with a better priority than all that are being prefilled gets a slot first, if it fits.
        """
        first = min(
            (slots.entries[sequence] for sequence in slots.prefilling), key=lambda entry: entry.priority, default=None
        )
        entry = None
        if slots.num_free and len(self._waiting):
            entry = self._waiting.select_next(
                slots.num_free, slots.slots_per_group(), {sequence.group for sequence in slots.prefilling}
            )
        if entry and (first is None or entry.priority < first.priority) and self._admit(slots, entry):
            return entry.sequence
        return first.sequence if first else None

    def _admit(self, slots: Slots, entry: QueueEntry) -> bool:
        # The next sequence blocks those behind it until it fits: if smaller ones passed it, it might never be admitted.
        wanted = self._runner.kv_bytes(entry.reserved_tokens)
        if len(slots) and slots.reserved_bytes + wanted > self._runner.kv_cache_bytes:
            return False
        if not self._waiting.remove(entry):
            return False
        slots.assign(entry)
        return True

    def prefill_chunk(self, slots: Slots, sequence: Sequence, budget: float) -> tuple[float, Logits | None]:
        """Prefill the next chunk of a sequence, within a budget of 0 to 1 whole chunks.

        Return its cost in whole chunks, and float32[vocabulary] after the prompt's last token, or None if more chunks
        follow. Nothing is computed if the chunk costs more than a `budget` below 1, or if the sequence was preempted.
        """
        entry, past = slots.entries[sequence], sequence.length
        chunk_size = self._runner.chunk_size(past)
        chunk = sequence.prefill_tokens[past : past + chunk_size]
        stop = past + len(chunk)
        is_last = stop == len(sequence.prefill_tokens)
        cost = len(chunk) / chunk_size
        growth = self._runner.kv_bytes(stop) - self._runner.kv_bytes(past)
        self._free_memory(lambda: growth if sequence.slot >= 0 else 0)
        if sequence.slot < 0:
            return _MIN_CHUNK_COST, None
        block_hash = hash_block(entry.prefix_hash, chunk)
        reused, logits = self._reuse_chunk(slots, sequence, stop, block_hash, is_last)
        if reused:
            cost *= _COPY_COST
        elif budget < 1 and cost > budget:
            # It would delay the running sequences by more than a chunk in all: left for the next iteration.
            return budget, None
        else:
            logits = self._compute_chunk(slots, sequence, chunk, block_hash, is_last)
        sequence.length = stop
        entry.prefix_hash = block_hash
        if not is_last:
            return max(_MIN_CHUNK_COST * (_COPY_COST if reused else 1), cost), None
        assert logits is not None
        if len(sequence.group.sequences) > 1 and stop == len(sequence.group.generation.prompt):
            sequence.group.prompt_logits = logits.copy()
        return max(_MIN_CHUNK_COST, cost), logits

    def _reuse_chunk(
        self, slots: Slots, sequence: Sequence, stop: int, block_hash: bytes, is_last: bool
    ) -> tuple[bool, Logits | None]:
        """Copy the next chunk from another sequence of the group, or from the prefix cache.

        Return whether it was found, and the logits after the prompt's last token if the chunk `is_last`.
        """
        group, past = sequence.group, sequence.length
        prompt_length = len(sequence.prefill_tokens)
        if group.prompt_logits is not None and prompt_length == len(group.generation.prompt):
            sibling = next(
                (other for other in slots.running if other.group is group and other.length >= prompt_length), None
            )
            if sibling:
                self._runner.copy(sibling.slot, sequence.slot, past, stop)
                return True, group.prompt_logits.copy()
        block = self.prefix_cache.get(block_hash)
        if block is None or (is_last and block.logits is None):
            return False, None
        self._runner.load(sequence.slot, past, block.saved)
        self._stats.prefix_tokens_reused += stop - past
        return True, None if block.logits is None else block.logits.copy()

    def _compute_chunk(
        self, slots: Slots, sequence: Sequence, chunk: TokenIds, block_hash: bytes, is_last: bool
    ) -> Logits:
        past = sequence.length
        logits = self._runner.prefill(sequence.slot, chunk, past)
        self._stats.tokens_in += len(chunk)
        try:
            self._cache_chunk(slots, sequence, len(chunk), block_hash, logits if is_last else None)
        except Exception:  # the answer does not need the cache
            _log.exception("A chunk could not be added to the prefix cache.")
        return logits

    def _cache_chunk(
        self, slots: Slots, sequence: Sequence, count: int, block_hash: bytes, logits: Logits | None
    ) -> None:
        """Add the `count` tokens that were just computed to the prefix cache, if there is room."""
        past, parent_hash = sequence.length, slots.entries[sequence].prefix_hash
        stop = past + count
        if past and parent_hash not in self.prefix_cache:  # no lookup could reach this block
            return
        taken = slots.nbytes + self._runner.kv_bytes(stop) - self._runner.kv_bytes(past)
        wanted = self._runner.kv_bytes(count) + (0 if logits is None else logits.nbytes)
        room = min(self._prefix_cache_bytes, self._runner.kv_cache_bytes - taken) - wanted
        if self._prefix_cache_bytes and room >= 0 and self.prefix_cache.evict_to(room, keep=parent_hash):
            saved = self._runner.save(sequence.slot, past, stop)
            self.prefix_cache.put(block_hash, parent_hash, saved, None if logits is None else logits.copy())
