"""The answers that hold pictures: https://platform.openai.com/docs/api-reference/images/object and …/images-streaming

`code`, `message`, `seed` and the `index` of a stream are not OpenAI's. `usage`, without which OpenAI's clients cannot
read the event of a picture that is done, is of noughts: no model that draws counts tokens.
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
from gateway.operations.generate_image import Effort, GenerateImage, Image, ImageEvent, OutputFormat, PartialImage
from gateway.operations.image_limits import format_size


class DrawnImage(BaseModel):
    """One picture, at a URL or in base64."""

    url: Annotated[str, Field(default_factory=omitted)]
    b64_json: Annotated[str, Field(default_factory=omitted)]
    seed: Annotated[int, Field(default_factory=omitted, ge=0, description="The seed that draws it again.")]


class ImageAttributes(BaseModel):
    """What all pictures of an answer have in common."""

    background: Literal["opaque"]
    output_format: OutputFormat
    quality: Effort
    size: Annotated[str, Field(pattern=r"^\d+x\d+$")]


class InputTokensDetails(BaseModel):
    """What `input_tokens` consist of."""

    image_tokens: Literal[0]
    text_tokens: Literal[0]


class ImageUsage(BaseModel):
    """Tokens: models that draw count none."""

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
"""The only `ImageUsage` there is."""


class ImagesResponse(ImageAttributes, SuccessFields):
    """Pictures, in the order of their seeds."""

    created: int
    usage: ImageUsage
    data: Annotated[list[DrawnImage], Field(min_length=1)]


class _ImageEvent(ImageAttributes):
    created_at: int
    b64_json: str
    index: Annotated[int, Field(ge=0, description="Which picture of the request it is.")]


class ImageGenPartialImageEvent(_ImageEvent):
    """A preview of a picture."""

    type: Literal["image_generation.partial_image"]
    partial_image_index: Annotated[int, Field(ge=0)]


class ImageGenCompletedEvent(_ImageEvent):
    """A picture is done."""

    type: Literal["image_generation.completed"]
    usage: ImageUsage
    seed: Annotated[int, Field(default_factory=omitted, ge=0)]


class ImageEditPartialImageEvent(_ImageEvent):
    """A preview of an edited picture."""

    type: Literal["image_edit.partial_image"]
    partial_image_index: Annotated[int, Field(ge=0)]


class ImageEditCompletedEvent(_ImageEvent):
    """An edited picture is done."""

    type: Literal["image_edit.completed"]
    usage: ImageUsage
    seed: Annotated[int, Field(default_factory=omitted, ge=0)]


STREAM_EVENTS: tuple[type[BaseModel], ...] = (
    ImageGenPartialImageEvent,
    ImageGenCompletedEvent,
    ImageEditPartialImageEvent,
    ImageEditCompletedEvent,
)


def render(asked: GenerateImage, images: Sequence[Image], urls: Sequence[str] | None) -> bytes:
    """Return the JSON of an answer: `urls` has one for each picture, or is None where they travel themselves."""
    data = [
        {**({"url": urls[at]} if urls else {"b64_json": _base64(image.data)}), **_seed(image)}
        for at, image in enumerate(images)
    ]
    head = {"created": int(time.time()), "data": data}
    return orjson.dumps(
        {**head, **_render_attributes(asked, images[0].data), "usage": ZERO_USAGE, "code": 0, "message": "success"}
    )


class ImageEventRenderer:
    """Renders events as those of a stream."""

    def __init__(self, asked: GenerateImage, kind: Literal["image_generation", "image_edit"]) -> None:
        self._asked = asked
        self._kind = kind

    def render(self, event: ImageEvent) -> Iterable[NamedEvent]:
        """Yield the event that a preview or a picture becomes."""
        if isinstance(event, PartialImage):
            yield self._named("partial_image", event, {"partial_image_index": event.number})
        elif isinstance(event, Image):
            yield self._named("completed", event, {**_seed(event), "usage": ZERO_USAGE})

    def _named(self, what: str, event: PartialImage | Image, more: dict[str, Any]) -> NamedEvent:
        name = f"{self._kind}.{what}"
        data = {"b64_json": _base64(event.data), "index": event.index, "created_at": int(time.time())}
        return NamedEvent(
            name, orjson.dumps({"type": name, **data, **_render_attributes(self._asked, event.data), **more})
        )


def _render_attributes(asked: GenerateImage, data: bytes) -> dict[str, Any]:
    """What an answer says of its pictures; their size is that of the first."""
    try:
        size = encoded_image.image_size(data)
    except ValueError:
        raise ModelFailed("The model gave what is no picture.") from None
    return {
        "background": "opaque",
        "output_format": asked.output_format,
        "quality": asked.effort,
        "size": format_size(size),
    }


def _seed(image: Image) -> dict[str, int]:
    return {} if image.seed is None else {"seed": image.seed}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
