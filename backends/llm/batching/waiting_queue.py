"""The queue of sequences that wait for a slot, and the order in which they get one.

The queue knows prompt lengths and arrival order. It knows nothing of memory: `PrefillScheduler` decides whether the
selected sequence fits.
"""

import threading
from collections import deque
from collections.abc import Collection, Mapping

from backends.llm.batching.sequence import Sequence, SequenceGroup
from backends.llm.stats import Stats

_RESERVED_GROWTH_TOKENS = 64
"""Tokens of answer for which memory is reserved, beyond the prompt, when a sequence is admitted."""


class QueueEntry:
    """A waiting sequence with its priority.

    Time is counted in prefilled tokens. The priority of a sequence is the time at which its prefill would be complete
    if it had run alone since the sequence arrived. So a short prompt overtakes a long one, but only if it arrives
    before as many tokens are prefilled as the long prompt has: no sequence starves.
    """

    def __init__(self, sequence: Sequence, arrival_number: int, arrived_at_token: int, context_length: int) -> None:
        """`arrival_number` counts arrivals; `arrived_at_token` is the number of tokens prefilled before this one."""
        self.sequence = sequence
        self.arrival_number = arrival_number
        self.arrived_at_token = arrived_at_token
        sampling, prompt = sequence.group.generation.sampling, sequence.group.generation.prompt
        self._max_tokens = min(
            context_length, len(prompt) + (context_length if sampling.max_tokens is None else sampling.max_tokens)
        )
        self.reserved_tokens = min(len(prompt) + _RESERVED_GROWTH_TOKENS, self._max_tokens)
        """Tokens for which memory must be free before the sequence is admitted."""
        self.prefix_hash = b""
        """`prefix_cache.hash_block` of the tokens in the slot, while the prompt is prefilled; empty before."""
        self._was_preempted = False

    @property
    def priority(self) -> tuple[int, int]:
        """Sort key: the smallest is next. A preempted sequence comes before all that arrived after it."""
        num_to_prefill = 0 if self._was_preempted else len(self.sequence.prefill_tokens) - self.sequence.length
        return self.arrived_at_token + num_to_prefill, self.arrival_number

    def mark_preempted(self, length: int) -> None:
        """Record a preemption of the sequence, whose slot held `length` tokens.

        Its reservation grows, so that it is not admitted into memory that it would lose again.
        """
        # It may have been preempted during its prefill: the reservation still covers the whole prompt.
        self.reserved_tokens = max(self.reserved_tokens, min(length + _RESERVED_GROWTH_TOKENS, self._max_tokens))
        self.prefix_hash = b""
        self._was_preempted = True


class WaitingQueue:
    """The waiting sequences, by group. All methods may be called from any thread.

    Groups share the slots evenly: if slots are scarce, a group that has fewer of them comes before one that has more.
    """

    def __init__(self, stats: Stats) -> None:
        """`stats.rows_waiting` counts the queue's entries."""
        self._stats = stats
        self._lock = threading.Lock()
        self._groups: dict[SequenceGroup, deque[QueueEntry]] = {}

    def __len__(self) -> int:
        return self._stats.rows_waiting

    def append(self, entry: QueueEntry) -> None:
        """Add an entry behind the others of its group."""
        with self._lock:
            self._groups.setdefault(entry.sequence.group, deque()).append(entry)
            self._count(1)

    def requeue(self, entry: QueueEntry) -> None:
        """Put an entry back before the others of its group."""
        with self._lock:
            self._groups.setdefault(entry.sequence.group, deque()).appendleft(entry)
            self._count(1)

    def select_next(
        self, num_free: int, slots_per_group: Mapping[SequenceGroup, int], prefilling_groups: Collection[SequenceGroup]
    ) -> QueueEntry | None:
        """Return the entry that gets one of `num_free` slots next, or None. The entry stays in the queue.

        `slots_per_group` counts the slots of each group that has any. No second sequence of a group in
        `prefilling_groups` is returned: it waits until the group's prompt is computed, and copies it.
        """
        if not num_free:
            return None
        with self._lock:
            without_slot = [entries[0] for group, entries in self._groups.items() if group not in slots_per_group]
            best = min(without_slot, key=lambda entry: entry.priority, default=None)
            if num_free > len(without_slot):
                with_slots = [
                    (slots_per_group[group], entries[0].priority, entries[0])
                    for group, entries in self._groups.items()
                    if group in slots_per_group and group not in prefilling_groups
                ]
                if with_slots:
                    other = min(with_slots)[2]
                    best = other if best is None or other.priority < best.priority else best
            return best

    def remove(self, entry: QueueEntry) -> bool:
        """Take an entry out of the queue. Return false if its group was removed meanwhile."""
        with self._lock:
            group = entry.sequence.group
            entries = self._groups.get(group)
            if not entries or entry not in entries:
                return False
            entries.remove(entry)
            if not entries:
                del self._groups[group]
            self._count(-1)
            return True

    def remove_group(self, group: SequenceGroup) -> None:
        """Drop all entries of a group."""
        with self._lock:
            self._count(-len(self._groups.pop(group, ())))

    def _count(self, change: int) -> None:
        self._stats.rows_waiting += change
