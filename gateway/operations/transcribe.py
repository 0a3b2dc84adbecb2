"""The operation `transcribe`: the text of recorded speech."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import asdict, dataclass
from typing import ClassVar

from gateway.operations.operation import ExpectedOutput, Output, Progress, TaskOperation


@dataclass(frozen=True, slots=True)
class Segment:
    """The next words of the text."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcribe(TaskOperation):
    """Transcribe `audio`: mono, little-endian float32 samples, 16,000 per second."""

    operation: ClassVar = "transcribe"
    phrase: ClassVar = "transcribe speech"

    audio: bytes

    async def task_events(self, events: AsyncIterator[Segment]) -> AsyncGenerator[Progress | Output]:
        """Yield the whole text once, at the end."""
        text = await gather(events)
        yield Output(**asdict(self.expected_outputs()[0]), data=text.encode())

    def expected_outputs(self) -> tuple[ExpectedOutput, ...]:
        """Return the one text."""
        return (ExpectedOutput(index=0, content_type="text/plain; charset=utf-8", facts={}),)


async def gather(events: AsyncIterator[Segment]) -> str:
    """Collect a stream. Return the whole text."""
    return "".join([event.text async for event in events]).strip()
