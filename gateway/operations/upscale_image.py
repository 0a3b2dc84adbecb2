"""The operation `upscale_image`: a picture with more pixels, and details that suit it."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from gateway.operations.generate_image import OutputFormat
from gateway.operations.operation import ExpectedOutput, Output, Progress, TaskOperation


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaledImage:
    """The whole picture, an encoded file. `width` and `height` are in pixels."""

    data: bytes
    width: int
    height: int


UpscaleEvent: TypeAlias = Progress | UpscaledImage


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleImage(TaskOperation):
    """Multiply the width and the height of `image`, an encoded file, by `scale`.

    `scale` is one of the model's scales. `quality` is that of the encoding, 0 to 100.
    """

    operation: ClassVar = "upscale_image"
    phrase: ClassVar = "upscale images"
    route: ClassVar = "/v1/images/upscales"
    task_object: ClassVar = "image"

    image: bytes
    scale: int = 2
    output_format: OutputFormat = "png"
    quality: int | None = None

    async def task_events(self, events: AsyncIterator[UpscaleEvent]) -> AsyncGenerator[Progress | Output]:
        """Yield progress, and the picture with its size as facts."""
        async for event in events:
            match event:
                case Progress():
                    yield event
                case UpscaledImage(data=data, width=width, height=height):
                    facts = {"width": width, "height": height}
                    yield Output(index=0, content_type=self._content_type, facts=facts, data=data)

    def expected_outputs(self) -> tuple[ExpectedOutput, ...]:
        """Return the one picture. Its size is None, as only the file tells it."""
        facts = {"width": None, "height": None}
        return (ExpectedOutput(index=0, content_type=self._content_type, facts=facts),)

    @property
    def _content_type(self) -> str:
        return f"image/{self.output_format}"


async def gather(events: AsyncIterator[UpscaleEvent]) -> UpscaledImage:
    """Return the picture of a stream, which has exactly one."""
    (picture,) = [event async for event in events if isinstance(event, UpscaledImage)]
    return picture
