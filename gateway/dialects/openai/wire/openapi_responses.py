"""What the OpenAPI document says about answers: every status that can come, and its body."""

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, Field

from gateway import errors
from gateway.dialects.openai.wire.errors import render_body as error_body

Responses = dict[int | str, dict[str, Any]]


def omitted() -> Any:
    """Stands for a field of an answer that is left out. It is never null."""


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
    param: Annotated[str | None, Field(description="The path of the field at fault, where there is one.")]
    code: Annotated[str, Field(description="What happened, in a word that programs can compare.")]


class ErrorResponse(BaseModel):
    """A failure. In a stream that has begun, it is the last event."""

    code: Annotated[int, Field(ge=1, description="The failure's number for nodes; never 0.")]
    message: str
    error: ErrorDetail


_FAILURES: Mapping[int, tuple[str, errors.GatewayError]] = {
    400: (
        "The request is wrong, or asks the model for what it cannot do; `error.param` says where.",
        errors.InvalidRequest(
            "Invalid value for 'temperature': Input should be less than or equal to 2.", param="temperature"
        ),
    ),
    401: (
        "The request bears no key, or one that is not known.",
        errors.Unauthorized("The key of the header 'Authorization' is not known here."),
    ),
    404: (
        "No server holds a model of this name.",
        errors.ModelNotFound("The model 'gpt-7' does not exist. Models: smollm2-135m-instruct.", param="model"),
    ),
    408: (
        "The body did not arrive within the setting `body_timeout`.",
        errors.RequestTimeout("The body did not arrive within 120 seconds."),
    ),
    413: (
        "The body is larger than the setting `max_body_bytes`, or it holds more than a request may.",
        errors.RequestTooLarge("The body is larger than this service takes, 33554432 bytes."),
    ),
    415: (
        "The body is packed by something else than gzip.",
        errors.UnsupportedEncoding(
            "A body is taken as it is, or packed by gzip once; this one is said to be 'br'.", param="Content-Encoding"
        ),
    ),
    429: (
        "The caller asks more often than it may, or the model's queue is full.",
        errors.QueueFull("1024 requests wait already.", retry_after=errors.RETRY_AFTER_SECONDS),
    ),
    500: ("The gateway failed.", errors.GatewayError("The gateway failed on this request.")),
    502: ("Triton or the model failed.", errors.ModelFailed("The engine stopped.")),
    503: (
        "The model's server does not answer, or the gateway stops.",
        errors.ServerUnavailable(
            "No server that could hold the model 'smollm2-135m-instruct' is reachable.",
            retry_after=errors.RETRY_AFTER_SECONDS,
        ),
    ),
    504: (
        "The model gave no sign of life for the setting `request_timeout`.",
        errors.ModelTimeout("The model gave no answer for 600 seconds."),
    ),
    507: (
        "What the model made cannot be kept.",
        errors.StorageFull("The store of this service is full: the file was not kept."),
    ),
}
_REQUEST_ID = {
    "x-request-id": {
        "description": "The id of this request: the caller's own, or a new one.",
        "required": True,
        "schema": {"type": "string"},
    }
}
_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
}
_WWW_AUTHENTICATE = {"WWW-Authenticate": {"required": True, "schema": {"type": "string", "const": "Bearer"}}}
_ACCEPT_ENCODING = {"Accept-Encoding": {"required": True, "schema": {"type": "string", "const": "gzip"}}}
_HEADERS: Mapping[int, dict[str, Any]] = {
    401: _WWW_AUTHENTICATE,
    415: _ACCEPT_ENCODING,
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}

LIST_FAILURES = (401, 500)
"""How a request fails that asks no model."""
RETRIEVE_FAILURES = (401, 404, 500)
"""How a request fails that only looks for a model."""
LOOKUP_FAILURES = (400, 401, 404, 500, 503)
"""How a request fails that looks for something in a database."""
INFERENCE_FAILURES = (400, 401, 404, 408, 413, 415, 429, 500, 502, 503, 504)
"""How a request fails that asks a model."""
STORED_OUTPUT_FAILURES = (*INFERENCE_FAILURES, 507)
"""How a request fails whose answer is kept."""


def responses(
    success: type[BaseModel] | UnionType,
    failures: tuple[int, ...],
    *,
    description: str,
    example: Mapping[str, Any],
    event: type[BaseModel] | None = None,
    event_example: Mapping[str, Any] | None = None,
    more_events: tuple[type[BaseModel], ...] = (),
) -> Responses:
    """Return the `responses` of a route that answers `success`, or a stream of `event` where it has one.

    `more_events` are others of the same stream. Events that have a `type` bear it as their name, too.
    """
    content: dict[str, Any] = {"application/json": {"example": example}}
    if event:
        content["text/event-stream"] = _stream((event, *more_events), event_example or {})
    documented: Responses = {
        200: {"model": success, "description": description, "headers": _REQUEST_ID, "content": content}
    }
    for status in failures:
        words, error = _FAILURES[status]
        documented[status] = {
            "model": ErrorResponse,
            "description": words,
            "headers": {**_REQUEST_ID, **_HEADERS.get(status, {})},
            "content": {"application/json": {"example": orjson.loads(error_body(error))}},
        }
    return documented


def _stream(events: tuple[type[BaseModel], ...], example: Mapping[str, Any]) -> dict[str, Any]:
    """Events: OpenAPI 3.1 has no word for a sequence, and its tools take the schema as that of each event."""
    models: tuple[type[BaseModel], ...] = (*events, ErrorResponse)
    schema = {"anyOf": [{"$ref": f"#/components/schemas/{model.__name__}"} for model in models]}
    data = {
        "type": "string",
        "description": "JSON; the words [DONE] after a stream that went well, and an error after one that did not.",
        "anyOf": [{"const": "[DONE]"}, {"contentMediaType": "application/json", "contentSchema": schema}],
    }
    name = f"event: {example['type']}\n" if "type" in example else ""
    return {
        "schema": {"type": "object", "required": ["data"], "properties": {"data": data}},
        "example": f"{name}data: {orjson.dumps(example).decode()}\n\ndata: [DONE]\n\n",
    }
