"""The base of operations that make one picture, with facts about it: `upscale_image` and `swap_face`."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any, ClassVar

from gateway.operations.generate_image import OutputFormat
from gateway.operations.operation import ExpectedOutput, Output, Progress, TaskOperation


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeImage:
    """The whole picture, an encoded file. `width` and `height` are in pixels."""

    data: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeImage(TaskOperation):
    """Make one picture. `quality` is that of the encoding, 0 to 100."""

    task_object: ClassVar = "image"
    fact_names: ClassVar[tuple[str, ...]] = ("width", "height")
    """Attributes of the event `MadeImage` that a task shows."""

    output_format: OutputFormat = "png"
    quality: int | None = None

    async def task_events(self, events: AsyncIterator[Progress | MadeImage]) -> AsyncGenerator[Progress | Output]:
        """Yield progress, and the picture with its facts."""
        async for event in events:
            match event:
                case Progress():
                    yield event
                case MadeImage():
                    yield Output(index=0, content_type=self._content_type, facts=self.facts(event), data=event.data)

    def expected_outputs(self) -> tuple[ExpectedOutput, ...]:
        """Return the one picture. Its facts are None: only the answer tells them."""
        facts = dict.fromkeys(self.fact_names)
        return (ExpectedOutput(index=0, content_type=self._content_type, facts=facts),)

    def facts(self, made: MadeImage) -> dict[str, Any]:
        """Return the facts about a picture, by name."""
        return {name: getattr(made, name) for name in self.fact_names}

    @property
    def _content_type(self) -> str:
        return f"image/{self.output_format}"


async def gather(events: AsyncIterator[Progress | MadeImage]) -> MadeImage:
    """Return the picture of a stream, which has exactly one."""
    (picture,) = [event async for event in events if isinstance(event, MadeImage)]
    return picture
