"""Sequences that wait for a row, and whose turn it is."""

import threading
from collections import deque
from collections.abc import Collection, Mapping

from backends.llm.batching.sequence import Job, Sequence
from backends.llm.figures import Figures

# Tokens that an answer may grow by before it takes memory that was not counted when it was given a row.
_GROWTH = 64


class Ticket:
    """The place of a sequence in the order of turns.

    Time is counted in prompt tokens that were read. The turn of a sequence is the time at which its prompt would be
    read if it had been read alone from the moment it came. So short prompts overtake long ones, but only those that
    come before as many tokens are read as the long one has: nobody starves.
    """

    def __init__(self, sequence: Sequence, number: int, came: int, context_length: int) -> None:
        """`number` is the order of arrival, `came` the time of it."""
        self.sequence = sequence
        self.number = number
        self.came = came
        sampling, prompt = sequence.job.generation.sampling, sequence.job.generation.prompt
        self._most = min(
            context_length, len(prompt) + (context_length if sampling.max_tokens is None else sampling.max_tokens)
        )
        self.tokens = min(len(prompt) + _GROWTH, self._most)
        """Tokens for which there must be memory before the sequence is given a row."""
        self.digest = b""
        """What `prefixes.chain` made of the tokens in the row, as long as it is read."""
        self._again = False

    @property
    def turn(self) -> tuple[int, int]:
        """Who has the least is next. A sequence that lost its row stands before all that came after it."""
        unread = 0 if self._again else len(self.sequence.to_read) - self.sequence.length
        return self.came + unread, self.number

    def lost(self, length: int) -> None:
        """The sequence lost its row, which held so many tokens; it must not be given one that it would lose again."""
        # It may have been lost while its prompt was read: the whole of that is wanted all the same.
        self.tokens = max(self.tokens, min(length + _GROWTH, self._most))
        self.digest = b""
        self._again = True


class Waiting:
    """The queue. All methods may be called from any thread.

    Jobs share the rows evenly: where rows are scarce, a job that has fewer of them comes before one that has more.
    """

    def __init__(self, figures: Figures) -> None:
        """The number of those who wait is kept in the figures."""
        self._figures = figures
        self._lock = threading.Lock()
        self._jobs: dict[Job, deque[Ticket]] = {}

    def __len__(self) -> int:
        return self._figures.rows_waiting

    def append(self, ticket: Ticket) -> None:
        """Wait behind the others of the same job."""
        with self._lock:
            self._jobs.setdefault(ticket.sequence.job, deque()).append(ticket)
            self._count(1)

    def put_back(self, ticket: Ticket) -> None:
        """Wait before the others of the same job."""
        with self._lock:
            self._jobs.setdefault(ticket.sequence.job, deque()).appendleft(ticket)
            self._count(1)

    def next(self, free: int, held: Mapping[Job, int], reading: Collection[Job]) -> Ticket | None:
        """Whose turn it is to be given one of `free` rows, if anybody's; it goes on waiting.

        `held` are the rows of each job that has any, `reading` the jobs of which a row is being read: what is read for
        one answer is copied for the next, which therefore waits for it.
        """
        if not free:
            return None
        with self._lock:
            without = [tickets[0] for job, tickets in self._jobs.items() if job not in held]
            best = min(without, key=lambda ticket: ticket.turn, default=None)
            if free > len(without):
                with_rows = [
                    (held[job], tickets[0].turn, tickets[0])
                    for job, tickets in self._jobs.items()
                    if job in held and job not in reading
                ]
                if with_rows:
                    other = min(with_rows)[2]
                    best = other if best is None or other.turn < best.turn else best
            return best

    def take(self, ticket: Ticket) -> bool:
        """Wait no longer; false where the job was dropped meanwhile."""
        with self._lock:
            job = ticket.sequence.job
            tickets = self._jobs.get(job)
            if not tickets or ticket not in tickets:
                return False
            tickets.remove(ticket)
            if not tickets:
                del self._jobs[job]
            self._count(-1)
            return True

    def drop(self, job: Job) -> None:
        """Forget the sequences of a job."""
        with self._lock:
            self._count(-len(self._jobs.pop(job, ())))

    def _count(self, more: int) -> None:
        self._figures.rows_waiting += more
