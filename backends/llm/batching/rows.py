"""Which sequence runs in which row."""

from collections.abc import Iterator

from backends.llm.batching.forward import Forward
from backends.llm.batching.sequence import Sequence


class Rows:
    """Running sequences fill the rows 0 to n-1 without a hole; one more may be reading its prompt in a row behind.

    A batched step runs the first n rows, so a row that leaves is filled at once by the last one: only the tokens in use
    are copied.
    """

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self.running: list[Sequence] = []
        self.reading: Sequence | None = None

    def __iter__(self) -> Iterator[Sequence]:
        yield from self.running
        if self.reading:
            yield self.reading

    def __len__(self) -> int:
        return len(self.running) + (self.reading is not None)

    @property
    def free(self) -> bool:
        """Whether one more sequence may begin to read its prompt."""
        return self.reading is None and len(self.running) < self._forward.max_rows

    def begin(self, sequence: Sequence) -> None:
        """Give a sequence the first free row; its prompt is read there."""
        sequence.row = len(self.running)
        sequence.length = 0
        self.reading = sequence

    def join(self) -> None:
        """The prompt is read: the sequence runs with the others from the next step on."""
        sequence = self.reading
        assert sequence is not None
        self._move(sequence, len(self.running))
        self.reading = None
        self.running.append(sequence)

    def leave(self, sequences: list[Sequence]) -> None:
        """Free the rows of sequences, wherever they are; those that left already are passed over.

        Where the forward pass raises, every sequence is still where it says, and the call may be made again.
        """
        # From the last row on, so that no row is moved that leaves as well.
        for sequence in sorted(sequences, key=lambda sequence: -sequence.row):
            if sequence.row < 0:
                continue
            self._forward.release(sequence.row)
            if sequence is self.reading:
                self.reading = None
                sequence.row = -1
                continue
            last = self.running[-1]
            if last is sequence:
                self.running.pop()
                sequence.row = -1
                continue
            self._forward.copy(last.row, sequence.row, last.length)
            self.running[sequence.row] = self.running.pop()
            last.row, sequence.row, emptied = sequence.row, -1, last.row
            self._forward.release(emptied)

    def _move(self, sequence: Sequence, row: int) -> None:
        if sequence.row == row:
            return
        self._forward.copy(sequence.row, row, sequence.length)
        self._forward.release(sequence.row)
        sequence.row = row
