"""The operation `generate_image`: images from a text."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from gateway.operations.operation import ExpectedOutput, Output, TaskOperation
from gateway.operations.operation import Progress as Progress

OutputFormat: TypeAlias = Literal["png", "jpeg", "webp"]
Effort: TypeAlias = Literal["low", "medium", "high"]


@dataclass(frozen=True, slots=True)
class PartialImage:
    """A preview of image `index`, an encoded file. `number` counts the previews of one image from 0."""

    index: int
    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Image:
    """Image `index` is complete: an encoded file, and the seed that generates it again.

    `seed` is None where the model does not report it.
    """

    index: int
    data: bytes
    seed: int | None


ImageEvent: TypeAlias = Progress | PartialImage | Image


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateImage(TaskOperation):
    """Generate `n` images of what `prompt` describes. None leaves the choice to the model.

    `width` and `height` are in pixels. With `allow_resize`, a size that the model cannot generate is not refused: the
    model generates the nearest size that it can, and the gateway scales the image. `effort` applies to requests without
    `steps`: a model that reports its default number of steps takes half of them for `low` and twice as many for `high`.
    Image i has the seed `seed` + i. `quality` is that of the encoding, 0 to 100. `partial_images` is the number of
    previews that are sent for each image.
    """

    operation: ClassVar = "generate_image"
    phrase: ClassVar = "generate images"
    route: ClassVar = "/v1/images/generations"
    node_type: ClassVar = 1
    task_object: ClassVar = "image"
    seed_field: ClassVar = "seed"

    prompt: str
    negative_prompt: str | None = None
    n: int = 1
    width: int | None = None
    height: int | None = None
    allow_resize: bool = field(default=False, metadata={"stored_name": "scaled"})
    steps: int | None = None
    effort: Effort = "medium"
    guidance_scale: float | None = None
    seed: int | None = None
    output_format: OutputFormat = "png"
    quality: int | None = None
    partial_images: int = 0

    async def task_events(self, events: AsyncIterator[ImageEvent]) -> AsyncGenerator[Progress | Output]:
        """Yield progress and whole images; a task shows no previews."""
        async for event in events:
            match event:
                case Progress():
                    yield event
                case Image(index, data, seed):
                    yield Output(index=index, content_type=self._content_type, facts={"seed": seed}, data=data)

    def expected_outputs(self) -> tuple[ExpectedOutput, ...]:
        """Return the `n` images. A seed is None where the request has none."""
        seeds = [None if self.seed is None else self.seed + index for index in range(self.n)]
        return tuple(
            ExpectedOutput(index=index, content_type=self._content_type, facts={"seed": seed})
            for index, seed in enumerate(seeds)
        )

    @property
    def _content_type(self) -> str:
        return f"image/{self.output_format}"


async def gather(events: AsyncIterator[ImageEvent]) -> tuple[Image, ...]:
    """Collect the images of a stream, ordered by index."""
    images = [event async for event in events if isinstance(event, Image)]
    return tuple(sorted(images, key=lambda image: image.index))
