"""Requests to swap faces. OpenAI has none: the fields are those of its edits, with two pictures."""

from fastapi import Request
from pydantic import ConfigDict

from gateway.dialects.openai.wire import image_inputs
from gateway.dialects.openai.wire.images import ImageReference
from gateway.dialects.openai.wire.made_images import MadeImageFields
from gateway.operations.swap_face import SwapFace

FILES = ("source", "target")
"""Fields of a form with a file."""


class CreateFaceSwapRequest(MadeImageFields):
    """The body of a request to swap faces. A form has the same fields, as texts and files.

    The largest face of `source` comes on all faces of `target`.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "face-swap",
                    "source": "https://example.com/portrait.jpg",
                    "target": "https://example.com/group.jpg",
                }
            ]
        }
    )

    source: ImageReference
    target: ImageReference


async def parse_face_swap(body: CreateFaceSwapRequest, model: str, request: Request) -> SwapFace:
    """Return the operation of `body`, with its pictures loaded. Raises as `image_inputs.load_named` does."""
    output_format, quality = body.encoding()
    source, target = await image_inputs.load_named(request, {"source": body.source, "target": body.target})
    return SwapFace(model=model, source=source, target=target, output_format=output_format, quality=quality)
