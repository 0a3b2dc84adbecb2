"""Write down what is said."""

from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcribe:
    """Write down `audio`: mono float32 samples, little endian, 16,000 a second."""

    model: str
    audio: bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """The next words."""

    text: str


async def gather(events: AsyncIterator[Segment]) -> str:
    """Fold a stream into the whole text."""
    return "".join([event.text async for event in events]).strip()
