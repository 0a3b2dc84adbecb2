"""The operation `swap_face`: a picture with the face of another one."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from gateway.operations.generate_image import OutputFormat
from gateway.operations.operation import ExpectedOutput, Output, Progress, TaskOperation


@dataclass(frozen=True, slots=True, kw_only=True)
class SwappedImage:
    """The whole picture, an encoded file. `width` and `height` are in pixels; `num_faces` faces were swapped."""

    data: bytes
    width: int
    height: int
    num_faces: int


SwapFaceEvent: TypeAlias = Progress | SwappedImage


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapFace(TaskOperation):
    """Put the largest face of the picture `source` on all faces of the picture `target`, both encoded files.

    `quality` is that of the encoding, 0 to 100.
    """

    operation: ClassVar = "swap_face"
    phrase: ClassVar = "swap faces"
    route: ClassVar = "/v1/images/face-swaps"
    task_object: ClassVar = "image"

    source: bytes
    target: bytes
    output_format: OutputFormat = "png"
    quality: int | None = None

    async def task_events(self, events: AsyncIterator[SwapFaceEvent]) -> AsyncGenerator[Progress | Output]:
        """Yield progress, and the picture with its size and the number of faces as facts."""
        async for event in events:
            match event:
                case Progress():
                    yield event
                case SwappedImage(data=data, width=width, height=height, num_faces=count):
                    facts = {"width": width, "height": height, "num_faces": count}
                    yield Output(index=0, content_type=self._content_type, facts=facts, data=data)

    def expected_outputs(self) -> tuple[ExpectedOutput, ...]:
        """Return the one picture. Its facts are None, as only the model tells them."""
        facts = dict.fromkeys(("width", "height", "num_faces"))
        return (ExpectedOutput(index=0, content_type=self._content_type, facts=facts),)

    @property
    def _content_type(self) -> str:
        return f"image/{self.output_format}"


async def gather(events: AsyncIterator[SwapFaceEvent]) -> SwappedImage:
    """Return the picture of a stream, which has exactly one."""
    (picture,) = [event async for event in events if isinstance(event, SwappedImage)]
    return picture
