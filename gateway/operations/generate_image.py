"""Draw pictures."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

OutputFormat: TypeAlias = Literal["png", "jpeg", "webp"]
Effort: TypeAlias = Literal["low", "medium", "high"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateImage:
    """Draw `n` pictures of what `prompt` says. `None` leaves the choice to the model.

    `width` and `height` are in pixels. With `allow_resize`, a size that the model does not draw is drawn in the one that is
    nearest to it and brought to size, instead of being refused. `effort` is for requests without `steps`: a model that
    tells its usual number takes half of it for `low`, and twice as many for `high`. Picture i has the seed `seed` + i.
    `quality` is that of the encoding, 0 to 100. `partial_images` is how many previews of each picture are sent.
    """

    model: str
    prompt: str
    negative_prompt: str | None = None
    n: int = 1
    width: int | None = None
    height: int | None = None
    allow_resize: bool = field(default=False, metadata={"stored_name": "scaled"})  # so databases of tasks have it
    steps: int | None = None
    effort: Effort = "medium"
    guidance_scale: float | None = None
    seed: int | None = None
    output_format: OutputFormat = "png"
    quality: int | None = None
    partial_images: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """The part of the whole request that is done, 0 to 1."""

    fraction: float


@dataclass(frozen=True, slots=True)
class PartialImage:
    """A preview of picture `index`, an encoded file; `number` counts those of one picture from 0."""

    index: int
    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Image:
    """Picture `index` is done: an encoded file, and the seed that draws it again. None: the model does not tell."""

    index: int
    data: bytes
    seed: int | None


ImageEvent: TypeAlias = Progress | PartialImage | Image


async def gather(events: AsyncIterator[ImageEvent]) -> tuple[Image, ...]:
    """Fold a stream into its pictures, in their order."""
    images = [event async for event in events if isinstance(event, Image)]
    return tuple(sorted(images, key=lambda image: image.index))
