"""The slots of the batch: which sequence has which row of the KV cache.

A slot is a row of the batch and of the KV cache, numbered from 0. `Slots` keeps the numbering dense. It does not decide
who gets a slot (`PrefillScheduler`) or loses one (`Scheduler`).
"""

from collections import Counter
from collections.abc import Iterator

from backends.llm.batching.model_runner import ModelRunner
from backends.llm.batching.sequence import Sequence, SequenceGroup
from backends.llm.batching.waiting_queue import QueueEntry


class SlotsCorrupted(Exception):
    """Swapping two slots failed halfway, so the contents of both are unknown.

    This is not the fault of one sequence: a sequence that went on could read another's keys and values.
    """


class Slots:
    """Running sequences fill the slots 0 to n-1 without a gap; sequences in prefill use slots behind them.

    A decode step runs the first n slots, so the last running sequence moves at once into a slot that is released.
    """

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner
        self.running: list[Sequence] = []
        self.prefilling: list[Sequence] = []
        self.entries: dict[Sequence, QueueEntry] = {}
        """The queue entry of every sequence that has a slot."""

    def __iter__(self) -> Iterator[Sequence]:
        yield from self.running
        yield from self.prefilling

    def __len__(self) -> int:
        return len(self.running) + len(self.prefilling)

    @property
    def num_free(self) -> int:
        """Number of sequences that may still get a slot."""
        return self._runner.max_rows - len(self)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values in all slots."""
        return sum(self._runner.kv_bytes(sequence.length) for sequence in self)

    @property
    def reserved_bytes(self) -> int:
        """Bytes that all sequences use or that were reserved at their admission, whichever is more for each."""
        return sum(self._runner.kv_bytes(max(seq.length, entry.reserved_tokens)) for seq, entry in self.entries.items())

    def slots_per_group(self) -> Counter[SequenceGroup]:
        """Count the slots of each group that has any."""
        return Counter(sequence.group for sequence in self)

    def last_arrived(self) -> Sequence:
        """Return the sequence that arrived last of all that have slots."""
        return max(self.entries.values(), key=lambda entry: entry.arrival_number).sequence

    def assign(self, entry: QueueEntry) -> None:
        """Give a waiting sequence a free slot for its prefill."""
        sequence = entry.sequence
        taken = {other.slot for other in self.prefilling}
        sequence.slot = next(slot for slot in range(len(self.running), self._runner.max_rows) if slot not in taken)
        sequence.length = 0
        self.prefilling.append(sequence)
        self.entries[sequence] = entry

    def start_decoding(self, sequence: Sequence) -> None:
        """Move a sequence whose prefill is complete among the running ones. Raises `SlotsCorrupted`."""
        slot = len(self.running)
        if sequence.slot != slot:
            other = next((other for other in self.prefilling if other.slot == slot), None)
            self._swap(sequence.slot, slot, (sequence.length, other.length if other else 0))
            if other:
                other.slot = sequence.slot
            sequence.slot = slot
        self.prefilling.remove(sequence)
        self.running.append(sequence)

    def release(self, sequences: list[Sequence]) -> None:
        """Release the slots of sequences, running or in prefill; those without a slot are skipped.

        Raises `SlotsCorrupted`. If the model runner raises while it releases a slot, every sequence still has the slot
        that it names, and the call may be repeated.
        """
        # From the last slot down, so that no sequence is moved that is about to be released too.
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

    def _swap(self, first: int, second: int, lengths: tuple[int, int]) -> None:
        try:
            self._runner.swap(first, second, lengths)
        except Exception as error:
            raise SlotsCorrupted(f"Slots {first} and {second} could not be swapped: {error}") from error
