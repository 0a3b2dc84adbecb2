"""OpenAI's error format as models, and the documentation of responses with it.

https://platform.openai.com/docs/guides/error-codes
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from gateway.dialects.openai.wire.errors import render_body
from gateway.http.openapi_responses import FAILURES, ResponseDocs


class ErrorDetail(BaseModel):
    """OpenAI's `error`."""

    message: str
    type: Literal[
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "rate_limit_error",
        "overloaded_error",
        "server_error",
    ]
    param: Annotated[str | None, Field(description="The path of the invalid field, or null.")]
    code: Annotated[str, Field(description="A machine-readable code of the error.")]


class ErrorResponse(BaseModel):
    """A failure. In a stream that has begun, it is the last event."""

    code: Annotated[int, Field(ge=1, description="The number of the error for DecentralGPT nodes; never 0.")]
    message: str
    error: ErrorDetail


OPENAI_DOCS = ResponseDocs(
    error_model=ErrorResponse,
    error_body=render_body,
    stream_end="[DONE]",
    descriptions={400: FAILURES[400].description.removesuffix(".") + "; `error.param` is the path of the field."},
)
