"""Which sequence runs in which row."""

from collections import Counter
from collections.abc import Iterator

from backends.llm.batching.model_runner import ModelRunner
from backends.llm.batching.sequence import Sequence, SequenceGroup
from backends.llm.batching.waiting_queue import QueueEntry


class SlotsCorrupted(Exception):
    """Two rows were to change places, and that failed amid the work: nobody knows what the rows hold.

    No fault of one sequence: whoever goes on reads what belongs to others, or nothing at all.
    """


class Slots:
    """Running sequences fill the rows 0 to n-1 without a hole; others read their prompts in rows behind them.

    A batched step runs the first n rows, so a row that leaves is filled at once by the last one.
    """

    def __init__(self, forward: ModelRunner) -> None:
        self._runner = forward
        self.running: list[Sequence] = []
        self.prefilling: list[Sequence] = []
        self.entries: dict[Sequence, QueueEntry] = {}
        """Of every sequence that has a row."""

    def __iter__(self) -> Iterator[Sequence]:
        yield from self.running
        yield from self.prefilling

    def __len__(self) -> int:
        return len(self.running) + len(self.prefilling)

    @property
    def num_free(self) -> int:
        """How many more sequences may begin to read their prompts."""
        return self._runner.max_rows - len(self)

    @property
    def nbytes(self) -> int:
        """The memory of all rows."""
        return sum(self._runner.kv_bytes(sequence.length) for sequence in self)

    @property
    def reserved_bytes(self) -> int:
        """The memory that all rows take or were promised when they began."""
        return sum(
            self._runner.kv_bytes(max(seq.length, ticket.reserved_tokens)) for seq, ticket in self.entries.items()
        )

    def slots_per_group(self) -> Counter[SequenceGroup]:
        """How many rows each job has."""
        return Counter(sequence.group for sequence in self)

    def last_arrived(self) -> Sequence:
        """The one that came last of all that have rows."""
        return max(self.entries.values(), key=lambda ticket: ticket.arrival_number).sequence

    def assign(self, ticket: QueueEntry) -> None:
        """Give a sequence a free row; its prompt is read there."""
        sequence = ticket.sequence
        taken = {other.slot for other in self.prefilling}
        sequence.slot = next(row for row in range(len(self.running), self._runner.max_rows) if row not in taken)
        sequence.length = 0
        self.prefilling.append(sequence)
        self.entries[sequence] = ticket

    def start_decoding(self, sequence: Sequence) -> None:
        """The prompt is read: the sequence runs with the others from the next step on. Raises `RowsLost`."""
        row = len(self.running)
        if sequence.slot != row:
            other = next((other for other in self.prefilling if other.slot == row), None)
            self._swap(sequence.slot, row, (sequence.length, other.length if other else 0))
            if other:
                other.slot = sequence.slot
            sequence.slot = row
        self.prefilling.remove(sequence)
        self.running.append(sequence)

    def release(self, sequences: list[Sequence]) -> None:
        """Free the rows of sequences, wherever they are; those that left already are passed over.

        Raises `RowsLost`. Where the forward pass raises as it forgets a row, every sequence is still where it says, and
        the call may be made again.
        """
        # From the last row on, so that no row is moved that leaves as well.
        for sequence in sorted(sequences, key=lambda sequence: -sequence.slot):
            if sequence.slot < 0:
                continue
            self._runner.release(sequence.slot)
            if sequence in self.prefilling:
                self.prefilling.remove(sequence)
            else:
                last = self.running[-1]
                if last is not sequence:
                    self._swap(last.slot, sequence.slot, (last.length, 0))
                    last.slot = sequence.slot
                self.running[sequence.slot] = last
                self.running.pop()
            sequence.slot = -1
            del self.entries[sequence]

    def _swap(self, one: int, other: int, lengths: tuple[int, int]) -> None:
        try:
            self._runner.swap(one, other, lengths)
        except Exception as error:
            raise SlotsCorrupted(f"Rows {one} and {other} could not change places: {error}") from error
