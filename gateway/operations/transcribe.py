"""Write down what is said."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import asdict, dataclass
from typing import ClassVar

from gateway.operations.operation import ExpectedOutput, Output, Progress, TaskOperation


@dataclass(frozen=True, slots=True)
class Segment:
    """The next words."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcribe(TaskOperation):
    """Write down `audio`: mono float32 samples, little endian, 16,000 a second."""

    operation: ClassVar = "transcribe"
    phrase: ClassVar = "write down speech"

    audio: bytes

    async def task_events(self, events: AsyncIterator[Segment]) -> AsyncGenerator[Progress | Output]:
        """Yield the whole text once, at the end."""
        text = await gather(events)
        yield Output(**asdict(self.expected_outputs()[0]), data=text.encode())

    def expected_outputs(self) -> tuple[ExpectedOutput, ...]:
        """Return the one text."""
        return (ExpectedOutput(index=0, content_type="text/plain; charset=utf-8", facts={}),)


async def gather(events: AsyncIterator[Segment]) -> str:
    """Fold a stream into the whole text."""
    return "".join([event.text async for event in events]).strip()
