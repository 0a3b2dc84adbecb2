"""Image responses: https://platform.openai.com/docs/api-reference/images/object and …/images-streaming

`code`, `message`, `seed` and the `index` of stream events are not OpenAI's. `usage` is all zeros, because image models
count no tokens; OpenAI's clients cannot parse the event of a completed image without it.
"""

import base64
import time
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, Field

from gateway.dialects.openai.response_models import SuccessFields
from gateway.errors import ModelFailed
from gateway.http.delivery import NamedEvent
from gateway.http.openapi_responses import omitted
from gateway.media import encoded_image
from gateway.model_card.image_limits import format_size
from gateway.operations.generate_image import Effort, GenerateImage, Image, ImageEvent, OutputFormat, PartialImage


class DrawnImage(BaseModel):
    """One image, at a URL or in base64."""

    url: Annotated[str, Field(default_factory=omitted)]
    b64_json: Annotated[str, Field(default_factory=omitted)]
    seed: Annotated[int, Field(default_factory=omitted, ge=0, description="The seed that generates it again.")]


class ImageAttributes(BaseModel):
    """Attributes that all images of a response share."""

    background: Literal["opaque"]
    output_format: OutputFormat
    quality: Effort
    size: Annotated[str, Field(pattern=r"^\d+x\d+$")]


class InputTokensDetails(BaseModel):
    """The parts of `input_tokens`."""

    image_tokens: Literal[0]
    text_tokens: Literal[0]


class ImageUsage(BaseModel):
    """Tokens: image models count none."""

    input_tokens: Literal[0]
    input_tokens_details: InputTokensDetails
    output_tokens: Literal[0]
    total_tokens: Literal[0]


ZERO_USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
"""The value of every `ImageUsage`."""


class ImagesResponse(ImageAttributes, SuccessFields):
    """Images, in the order of their seeds."""

    created: int
    usage: ImageUsage
    data: Annotated[list[DrawnImage], Field(min_length=1)]


class _ImageEvent(ImageAttributes):
    created_at: int
    b64_json: str
    index: Annotated[int, Field(ge=0, description="The index of the image in the request.")]


class ImageGenPartialImageEvent(_ImageEvent):
    """A preview of an image."""

    type: Literal["image_generation.partial_image"]
    partial_image_index: Annotated[int, Field(ge=0)]


class ImageGenCompletedEvent(_ImageEvent):
    """A completed image."""

    type: Literal["image_generation.completed"]
    usage: ImageUsage
    seed: Annotated[int, Field(default_factory=omitted, ge=0)]


class ImageEditPartialImageEvent(_ImageEvent):
    """A preview of an edited image."""

    type: Literal["image_edit.partial_image"]
    partial_image_index: Annotated[int, Field(ge=0)]


class ImageEditCompletedEvent(_ImageEvent):
    """A completed edit."""

    type: Literal["image_edit.completed"]
    usage: ImageUsage
    seed: Annotated[int, Field(default_factory=omitted, ge=0)]


STREAM_EVENTS: tuple[type[BaseModel], ...] = (
    ImageGenPartialImageEvent,
    ImageGenCompletedEvent,
    ImageEditPartialImageEvent,
    ImageEditCompletedEvent,
)


def render(operation: GenerateImage, images: Sequence[Image], urls: Sequence[str] | None) -> bytes:
    """Return the JSON of a response. `urls` has one URL for each image; None: the response has the images in base64."""
    data = [
        {**({"url": urls[at]} if urls else {"b64_json": _base64(image.data)}), **_seed(image)}
        for at, image in enumerate(images)
    ]
    head = {"created": int(time.time()), "data": data}
    return orjson.dumps(
        {**head, **_render_attributes(operation, images[0].data), "usage": ZERO_USAGE, "code": 0, "message": "success"}
    )


class ImageEventRenderer:
    """Renders the events of an image operation as the named events of a stream."""

    def __init__(self, operation: GenerateImage, kind: Literal["image_generation", "image_edit"]) -> None:
        """`kind` begins the names of events."""
        self._operation = operation
        self._kind = kind

    def render(self, event: ImageEvent) -> Iterable[NamedEvent]:
        """Yield the event of a preview or an image; other events become none."""
        if isinstance(event, PartialImage):
            yield self._named("partial_image", event, {"partial_image_index": event.number})
        elif isinstance(event, Image):
            yield self._named("completed", event, {**_seed(event), "usage": ZERO_USAGE})

    def _named(self, suffix: str, event: PartialImage | Image, more: dict[str, Any]) -> NamedEvent:
        name = f"{self._kind}.{suffix}"
        data = {"b64_json": _base64(event.data), "index": event.index, "created_at": int(time.time())}
        return NamedEvent(
            name, orjson.dumps({"type": name, **data, **_render_attributes(self._operation, event.data), **more})
        )


def _render_attributes(operation: GenerateImage, data: bytes) -> dict[str, Any]:
    """Return the `ImageAttributes` of a response, with the size of the image `data`. Raises `ModelFailed`."""
    try:
        size = encoded_image.image_size(data)
    except ValueError:
        raise ModelFailed("The model returned data that is not an image.") from None
    return {
        "background": "opaque",
        "output_format": operation.output_format,
        "quality": operation.effort,
        "size": format_size(size),
    }


def _seed(image: Image) -> dict[str, int]:
    return {} if image.seed is None else {"seed": image.seed}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
