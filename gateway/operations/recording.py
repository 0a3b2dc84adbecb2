"""Recordings: files of sound whose samples are decoded while a model reads them."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from typing import Protocol

SAMPLE_RATE = 16_000
"""Samples a second of all sound that models read."""
BYTES_PER_SECOND = 4 * SAMPLE_RATE
"""A sample is a little-endian float32."""


class SampleReader(Protocol):
    """Reads the samples of a recording from the start: mono, little-endian float32, `SAMPLE_RATE` a second.

    Those that were decoded and not yet dropped are in memory.
    """

    @property
    def total_seconds(self) -> float | None:
        """Length of the whole recording, once a sample has been read; None: the file does not tell."""
        ...

    async def fill(self, size: int) -> int:
        """Decode until `size` bytes are in memory, or the recording ends. Return how many are, up to `size`.

        Raises a `GatewayError` for a bad file.
        """
        ...

    def peek(self, size: int) -> bytes:
        """Return up to `size` bytes of those in memory, which stay there."""
        ...

    def drop(self, size: int) -> None:
        """Free the first `size` bytes in memory."""
        ...

    async def aclose(self) -> None:
        """Stop decoding."""
        ...


class Attachment(ABC):
    """A file of a request that may be larger than memory. A task stores it, and reads it from the store to run."""

    @abstractmethod
    def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the bytes of the file. Raises a `GatewayError` if they cannot be read."""


class Recording(Attachment):
    """An encoded file of sound."""

    @abstractmethod
    def open(self) -> SampleReader:
        """Return a reader at the start of the recording. Several may be open. Nothing is decoded yet."""


class BytesReader:
    """Reads samples that are in memory already."""

    def __init__(self, samples: bytes) -> None:
        self._samples = memoryview(samples)
        self.total_seconds: float | None = len(samples) / BYTES_PER_SECOND

    async def fill(self, size: int) -> int:
        """Return how many of `size` bytes are left."""
        return min(size, len(self._samples))

    def peek(self, size: int) -> bytes:
        """Return up to `size` bytes."""
        return bytes(self._samples[:size])

    def drop(self, size: int) -> None:
        """Move on by `size` bytes."""
        self._samples = self._samples[size:]

    async def aclose(self) -> None:
        """Do nothing."""
