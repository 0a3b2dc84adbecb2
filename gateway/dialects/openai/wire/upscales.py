"""Requests to upscale a picture. OpenAI has none: the fields are those of its edits, and `scale`."""

from typing import Annotated

from fastapi import Request
from pydantic import ConfigDict, Field

from gateway.dialects.openai.wire import image_inputs
from gateway.dialects.openai.wire.images import ImageReference
from gateway.dialects.openai.wire.made_images import MadeImageFields
from gateway.operations.upscale_image import UpscaleImage

FILES = ("image",)
"""Fields of a form with a file."""
MAX_SCALE = 16
"""Largest scale that a body may name. Models have 2 and 4."""


class CreateImageUpscaleRequest(MadeImageFields):
    """The body of a request to upscale a picture. A form has the same fields, as texts and a file."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "realesrgan-animevideov3", "image": "https://example.com/circle.png", "scale": 2}]
        }
    )

    image: ImageReference
    scale: Annotated[int, Field(ge=2, le=MAX_SCALE, description="Factor of width and height.")] = 2


async def parse_upscale(body: CreateImageUpscaleRequest, model: str, request: Request) -> UpscaleImage:
    """Return the operation of `body`, with its picture loaded. Raises as `image_inputs.load_named` does."""
    output_format, quality = body.encoding()
    (image,) = await image_inputs.load_named(request, {"image": body.image})
    return UpscaleImage(model=model, image=image, scale=body.scale, output_format=output_format, quality=quality)
