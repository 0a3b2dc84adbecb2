"""Sequences that wait for a row, and whose turn it is."""

import threading
from collections import deque
from collections.abc import Collection, Mapping

from backends.llm.batching.sequence import Sequence, SequenceGroup
from backends.llm.stats import Stats

# Tokens that an answer may grow by before it takes memory that was not counted when it was given a row.
_RESERVED_GROWTH_TOKENS = 64


class QueueEntry:
    """The place of a sequence in the order of turns.

    Time is counted in prompt tokens that were read. The turn of a sequence is the time at which its prompt would be
    read if it had been read alone from the moment it came. So short prompts overtake long ones, but only those that
    come before as many tokens are read as the long one has: nobody starves.
    """

    def __init__(self, sequence: Sequence, number: int, came: int, context_length: int) -> None:
        """`number` is the order of arrival, `came` the time of it."""
        self.sequence = sequence
        self.arrival_number = number
        self.arrived_at_token = came
        sampling, prompt = sequence.group.generation.sampling, sequence.group.generation.prompt
        self._max_tokens = min(
            context_length, len(prompt) + (context_length if sampling.max_tokens is None else sampling.max_tokens)
        )
        self.reserved_tokens = min(len(prompt) + _RESERVED_GROWTH_TOKENS, self._max_tokens)
        """Tokens for which there must be memory before the sequence is given a row."""
        self.prefix_hash = b""
        """What `prefixes.chain` made of the tokens in the row, as long as it is read."""
        self._was_preempted = False

    @property
    def priority(self) -> tuple[int, int]:
        """Who has the least is next. A sequence that lost its row stands before all that came after it."""
        unread = 0 if self._was_preempted else len(self.sequence.prefill_tokens) - self.sequence.length
        return self.arrived_at_token + unread, self.arrival_number

    def mark_preempted(self, length: int) -> None:
        """The sequence lost its row, which held so many tokens; it must not be given one that it would lose again."""
        # It may have been lost while its prompt was read: the whole of that is wanted all the same.
        self.reserved_tokens = max(self.reserved_tokens, min(length + _RESERVED_GROWTH_TOKENS, self._max_tokens))
        self.prefix_hash = b""
        self._was_preempted = True


class WaitingQueue:
    """The queue. All methods may be called from any thread.

    Jobs share the rows evenly: where rows are scarce, a job that has fewer of them comes before one that has more.
    """

    def __init__(self, figures: Stats) -> None:
        """The number of those who wait is kept in the figures."""
        self._stats = figures
        self._lock = threading.Lock()
        self._groups: dict[SequenceGroup, deque[QueueEntry]] = {}

    def __len__(self) -> int:
        return self._stats.rows_waiting

    def append(self, ticket: QueueEntry) -> None:
        """Wait behind the others of the same job."""
        with self._lock:
            self._groups.setdefault(ticket.sequence.group, deque()).append(ticket)
            self._count(1)

    def requeue(self, ticket: QueueEntry) -> None:
        """Wait before the others of the same job."""
        with self._lock:
            self._groups.setdefault(ticket.sequence.group, deque()).appendleft(ticket)
            self._count(1)

    def select_next(
        self, free: int, held: Mapping[SequenceGroup, int], reading: Collection[SequenceGroup]
    ) -> QueueEntry | None:
        """Whose turn it is to be given one of `free` rows, if anybody's; it goes on waiting.

        `held` are the rows of each job that has any, `reading` the jobs of which a row is being read: what is read for
        one answer is copied for the next, which therefore waits for it.
        """
        if not free:
            return None
        with self._lock:
            without = [tickets[0] for job, tickets in self._groups.items() if job not in held]
            best = min(without, key=lambda ticket: ticket.priority, default=None)
            if free > len(without):
                with_rows = [
                    (held[job], tickets[0].priority, tickets[0])
                    for job, tickets in self._groups.items()
                    if job in held and job not in reading
                ]
                if with_rows:
                    other = min(with_rows)[2]
                    best = other if best is None or other.priority < best.priority else best
            return best

    def remove(self, ticket: QueueEntry) -> bool:
        """Wait no longer; false where the job was dropped meanwhile."""
        with self._lock:
            job = ticket.sequence.group
            tickets = self._groups.get(job)
            if not tickets or ticket not in tickets:
                return False
            tickets.remove(ticket)
            if not tickets:
                del self._groups[job]
            self._count(-1)
            return True

    def remove_group(self, job: SequenceGroup) -> None:
        """Forget the sequences of a job."""
        with self._lock:
            self._count(-len(self._groups.pop(job, ())))

    def _count(self, more: int) -> None:
        self._stats.rows_waiting += more
