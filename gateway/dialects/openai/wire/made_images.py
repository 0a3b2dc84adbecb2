"""Fields of the requests whose answer is one picture: those of upscales and face swaps, which OpenAI does not have."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gateway.dialects.openai.wire.form_fields import parse_fields
from gateway.dialects.openai.wire.images import encoding_quality
from gateway.http.forms import Form
from gateway.http.wire_model import WireModel
from gateway.operations.generate_image import OutputFormat

MAX_JSON_VALUES = 100
"""JSON values of a body."""


class MadeImageFields(WireModel):
    """The fields that OpenAI's edits have, too. A form has the same fields, as texts and files."""

    model: str | None = None
    response_format: Literal["url", "b64_json", ""] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: Annotated[int | None, Field(ge=0, le=100)] = None
    user: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_form(cls, body: Any) -> Any:
        return parse_fields(body, cls.model_fields) if isinstance(body, Form) else body

    def encoding(self) -> tuple[OutputFormat, int | None]:
        """Return the format and the quality of the file. Raises `InvalidRequest`, as `encoding_quality` does."""
        output_format = self.output_format or "png"
        return output_format, encoding_quality(output_format, self.output_compression)


def form_request_body(schema: type[MadeImageFields], *files: str) -> dict[str, Any]:
    """Return the OpenAPI `requestBody` of the same request as a form. `files` are the names of fields with a file."""
    properties = schema.model_json_schema()["properties"] | {
        name: {"type": "string", "format": "binary"} for name in files
    }
    form = {"type": "object", "properties": properties, "required": list(files)}
    return {"requestBody": {"content": {"multipart/form-data": {"schema": form}}}}
