"""Requests to upscale a picture. OpenAI has none: the fields are those of its edits, and `scale`."""

from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import ConfigDict, Field, model_validator

from gateway.dialects.openai.wire import image_inputs
from gateway.dialects.openai.wire.form_fields import parse_fields
from gateway.dialects.openai.wire.images import ImageReference, encoding_quality
from gateway.http.forms import Form
from gateway.http.wire_model import WireModel
from gateway.operations.upscale_image import UpscaleImage

MAX_JSON_VALUES = 100
"""JSON values of a body."""
MAX_SCALE = 16
"""Largest scale that a body may name. Models have 2 and 4."""


class CreateImageUpscaleRequest(WireModel):
    """The body of a request to upscale a picture. A form has the same fields, as texts and a file."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "realesrgan-animevideov3", "image": "https://example.com/circle.png", "scale": 2}]
        }
    )

    model: str | None = None
    image: ImageReference
    scale: Annotated[int, Field(ge=2, le=MAX_SCALE, description="Factor of width and height.")] = 2
    response_format: Literal["url", "b64_json", ""] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: Annotated[int | None, Field(ge=0, le=100)] = None
    user: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_form(cls, body: Any) -> Any:
        return parse_fields(body, cls.model_fields) if isinstance(body, Form) else body


async def parse_upscale(body: CreateImageUpscaleRequest, model: str, request: Request) -> UpscaleImage:
    """Return the operation of `body`, with its picture loaded. Raises as `image_inputs.load_single` does."""
    output_format = body.output_format or "png"
    quality = encoding_quality(output_format, body.output_compression)
    image = await image_inputs.load_single(request, body.image, "image")
    return UpscaleImage(model=model, image=image, scale=body.scale, output_format=output_format, quality=quality)


def form_request_body(schema: type[CreateImageUpscaleRequest]) -> dict[str, Any]:
    """Return the OpenAPI `requestBody` of the same request as a form."""
    properties = schema.model_json_schema()["properties"] | {"image": {"type": "string", "format": "binary"}}
    form = {"type": "object", "properties": properties, "required": ["image"]}
    return {"requestBody": {"content": {"multipart/form-data": {"schema": form}}}}
