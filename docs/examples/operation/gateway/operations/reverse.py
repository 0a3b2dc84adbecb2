"""The operation `reverse`: the words of a text, the last one first."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import asdict, dataclass
from typing import ClassVar

from gateway.operations.operation import ExpectedOutput, Output, Progress, TaskOperation


@dataclass(frozen=True, slots=True)
class Word:
    """The next word."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reverse(TaskOperation):
    """Reverse the order of the words of `text`."""

    operation: ClassVar = "reverse"
    phrase: ClassVar = "reverse texts"
    route: ClassVar = "/v1/reversals"

    text: str

    async def task_events(self, events: AsyncIterator[Word]) -> AsyncGenerator[Progress | Output]:
        """Yield the progress after each word, and the whole text at the end."""
        words: list[str] = []
        async for event in events:
            words.append(event.text)
            yield Progress(len(words) / len(self.text.split()))
        yield Output(**asdict(self.expected_outputs()[0]), data=" ".join(words).encode())

    def expected_outputs(self) -> tuple[ExpectedOutput, ...]:
        """Return the one text."""
        facts = {"words": len(self.text.split())}
        return (ExpectedOutput(index=0, content_type="text/plain; charset=utf-8", facts=facts),)


async def gather(events: AsyncIterator[Word]) -> str:
    """Collect a stream. Return the whole text."""
    return " ".join([event.text async for event in events])
