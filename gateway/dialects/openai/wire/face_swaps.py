"""Requests to swap faces. OpenAI has none: the fields are those of its edits, with two pictures."""

from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import ConfigDict, Field, model_validator

from gateway.dialects.openai.wire import image_inputs
from gateway.dialects.openai.wire.form_fields import parse_fields
from gateway.dialects.openai.wire.images import ImageReference, encoding_quality
from gateway.http.forms import Form
from gateway.http.wire_model import WireModel
from gateway.operations.swap_face import SwapFace

MAX_JSON_VALUES = 100
"""JSON values of a body."""


class CreateFaceSwapRequest(WireModel):
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

    model: str | None = None
    source: ImageReference
    target: ImageReference
    response_format: Literal["url", "b64_json", ""] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: Annotated[int | None, Field(ge=0, le=100)] = None
    user: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_form(cls, body: Any) -> Any:
        return parse_fields(body, cls.model_fields) if isinstance(body, Form) else body


async def parse_face_swap(body: CreateFaceSwapRequest, model: str, request: Request) -> SwapFace:
    """Return the operation of `body`, with its pictures loaded. Raises as `image_inputs.load_named` does."""
    output_format = body.output_format or "png"
    quality = encoding_quality(output_format, body.output_compression)
    source, target = await image_inputs.load_named(request, {"source": body.source, "target": body.target})
    return SwapFace(model=model, source=source, target=target, output_format=output_format, quality=quality)


def form_request_body(schema: type[CreateFaceSwapRequest]) -> dict[str, Any]:
    """Return the OpenAPI `requestBody` of the same request as a form."""
    files: dict[str, Any] = {name: {"type": "string", "format": "binary"} for name in ("source", "target")}
    form = {
        "type": "object",
        "properties": schema.model_json_schema()["properties"] | files,
        "required": list(files),
    }
    return {"requestBody": {"content": {"multipart/form-data": {"schema": form}}}}
