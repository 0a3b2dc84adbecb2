"""Which sequence runs in which row."""

from collections import Counter
from collections.abc import Iterator

from backends.llm.batching.forward import Forward
from backends.llm.batching.sequence import Job, Sequence
from backends.llm.batching.waiting import Ticket


class RowsLost(Exception):
    """Two rows were to change places, and that failed amid the work: nobody knows what the rows hold.

    No fault of one sequence: whoever goes on reads what belongs to others, or nothing at all.
    """


class Rows:
    """Running sequences fill the rows 0 to n-1 without a hole; others read their prompts in rows behind them.

    A batched step runs the first n rows, so a row that leaves is filled at once by the last one.
    """

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self.running: list[Sequence] = []
        self.reading: list[Sequence] = []
        self.tickets: dict[Sequence, Ticket] = {}
        """Of every sequence that has a row."""

    def __iter__(self) -> Iterator[Sequence]:
        yield from self.running
        yield from self.reading

    def __len__(self) -> int:
        return len(self.running) + len(self.reading)

    @property
    def free(self) -> int:
        """How many more sequences may begin to read their prompts."""
        return self._forward.max_rows - len(self)

    @property
    def nbytes(self) -> int:
        """The memory of all rows."""
        return sum(self._forward.row_bytes(sequence.length) for sequence in self)

    @property
    def promised(self) -> int:
        """The memory that all rows take or were promised when they began."""
        return sum(self._forward.row_bytes(max(seq.length, ticket.tokens)) for seq, ticket in self.tickets.items())

    def held(self) -> Counter[Job]:
        """How many rows each job has."""
        return Counter(sequence.job for sequence in self)

    def youngest(self) -> Sequence:
        """The one that came last of all that have rows."""
        return max(self.tickets.values(), key=lambda ticket: ticket.number).sequence

    def begin(self, ticket: Ticket) -> None:
        """Give a sequence a free row; its prompt is read there."""
        sequence = ticket.sequence
        taken = {other.row for other in self.reading}
        sequence.row = next(row for row in range(len(self.running), self._forward.max_rows) if row not in taken)
        sequence.length = 0
        self.reading.append(sequence)
        self.tickets[sequence] = ticket

    def join(self, sequence: Sequence) -> None:
        """The prompt is read: the sequence runs with the others from the next step on. Raises `RowsLost`."""
        row = len(self.running)
        if sequence.row != row:
            other = next((other for other in self.reading if other.row == row), None)
            self._swap(sequence.row, row, (sequence.length, other.length if other else 0))
            if other:
                other.row = sequence.row
            sequence.row = row
        self.reading.remove(sequence)
        self.running.append(sequence)

    def leave(self, sequences: list[Sequence]) -> None:
        """Free the rows of sequences, wherever they are; those that left already are passed over.

        Raises `RowsLost`. Where the forward pass raises as it forgets a row, every sequence is still where it says, and
        the call may be made again.
        """
        # From the last row on, so that no row is moved that leaves as well.
        for sequence in sorted(sequences, key=lambda sequence: -sequence.row):
            if sequence.row < 0:
                continue
            self._forward.release(sequence.row)
            if sequence in self.reading:
                self.reading.remove(sequence)
            else:
                last = self.running[-1]
                if last is not sequence:
                    self._swap(last.row, sequence.row, (last.length, 0))
                    last.row = sequence.row
                self.running[sequence.row] = last
                self.running.pop()
            sequence.row = -1
            del self.tickets[sequence]

    def _swap(self, one: int, other: int, lengths: tuple[int, int]) -> None:
        try:
            self._forward.swap(one, other, lengths)
        except Exception as error:
            raise RowsLost(f"Rows {one} and {other} could not change places: {error}") from error
