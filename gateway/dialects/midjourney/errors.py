"""The results of submissions: numeric codes in bodies of HTTP 200, and the same body for failures.

Codes: midjourney-proxy's `ReturnCode`. Requests that a client may have phrased well and that cannot be carried out are
answered with HTTP 200; malformed bodies, unknown tasks and failures of the service have their HTTP status.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import orjson
from pydantic import BaseModel
from starlette.responses import Response

from gateway import errors
from gateway.http.error_format import ErrorFormat, error_headers
from gateway.http.openapi_responses import ResponseDocs

_MAX_DESCRIPTION = 2000
"""Characters of a description; the rest is cut off."""


class Code(IntEnum):
    """The code of a result."""

    SUCCESS = 1
    NOT_FOUND = 3
    VALIDATION_ERROR = 4
    FAILURE = 9
    EXISTED = 21
    IN_QUEUE = 22
    QUEUE_REJECTED = 23
    BANNED_PROMPT = 24


class SubmitResult(BaseModel):
    """The answer to a submission. `result` is the id of the task, or a value that the route describes."""

    code: int
    description: str
    result: str | list[str] | None
    properties: dict[str, Any]


class Refusal(errors.GatewayError):
    """A request that cannot be carried out, with its result code. The HTTP status is 200."""

    status = 200
    code = "refused"

    def __init__(self, result: Code, message: str, properties: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.result = result
        self.properties = properties or {}


def refuse(message: str) -> Refusal:
    """Return the refusal of a request whose fields are wrong."""
    return Refusal(Code.VALIDATION_ERROR, message)


def answer(
    code: Code, description: str, result: str | list[str] | None = None, properties: Mapping[str, Any] | None = None
) -> Response:
    """Return the response to a submission."""
    return Response(_body(code, description, result, properties or {}), media_type="application/json")


def _body(code: Code, description: str, result: str | list[str] | None, properties: Mapping[str, Any]) -> bytes:
    body = {"code": int(code), "description": description[:_MAX_DESCRIPTION], "result": result}
    return orjson.dumps({**body, "properties": dict(properties)})


def _code(error: errors.GatewayError) -> Code:
    match error:
        case Refusal():
            return error.result
        case errors.NotFound():
            return Code.NOT_FOUND
        case errors.RateLimited():
            return Code.QUEUE_REJECTED
        case _ if error.status < 500:
            return Code.VALIDATION_ERROR
        case _:
            return Code.FAILURE


def render_body(error: errors.GatewayError) -> bytes:
    """Return the body of a failure."""
    properties = error.properties if isinstance(error, Refusal) else {"param": error.param} if error.param else {}
    return _body(_code(error), error.message, None, properties)


def _render(error: errors.GatewayError) -> Response:
    return Response(render_body(error), error.status, error_headers(error), media_type="application/json")


MIDJOURNEY_ERRORS = ErrorFormat(_render, render_body)
MIDJOURNEY_DOCS = ResponseDocs(error_model=SubmitResult, error_body=render_body)
