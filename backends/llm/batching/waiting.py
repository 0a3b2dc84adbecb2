"""Sequences that wait for a row."""

from collections import deque

from backends.llm.batching.sequence import Job, Sequence


class Waiting:
    """First come, first served. Not locked: the engine does that."""

    def __init__(self) -> None:
        self._sequences: deque[Sequence] = deque()

    def __len__(self) -> int:
        return len(self._sequences)

    def append(self, sequence: Sequence) -> None:
        """Join the end of the queue."""
        self._sequences.append(sequence)

    def pop(self) -> Sequence | None:
        """The one that has waited longest."""
        return self._sequences.popleft() if self._sequences else None

    def drop(self, job: Job) -> None:
        """Forget the sequences of a job."""
        if any(sequence.job is job for sequence in self._sequences):
            self._sequences = deque(sequence for sequence in self._sequences if sequence.job is not job)
