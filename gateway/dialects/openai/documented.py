"""What the OpenAPI document says about the answers of this dialect: every status that can come, and its body."""

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import BaseModel

from gateway import errors
from gateway.dialects.openai.answers import ErrorResponse
from gateway.dialects.openai.errors import body as error_body

Responses = dict[int | str, dict[str, Any]]

_CAN_FAIL: Mapping[int, tuple[str, errors.GatewayError]] = {
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
        "The body is larger than the setting `max_body_bytes`.",
        errors.RequestTooLarge("The body is larger than this service takes, 33554432 bytes."),
    ),
    429: (
        "The model's queue is full.",
        errors.QueueFull("1024 requests wait already.", retry_after=errors.RETRY_AFTER),
    ),
    500: ("The gateway failed.", errors.GatewayError("The gateway failed on this request.")),
    502: ("Triton or the model failed.", errors.ModelFailed("The engine stopped.")),
    503: (
        "The model's server does not answer, or the gateway stops.",
        errors.ServerGone(
            "No server that could hold the model 'smollm2-135m-instruct' is reachable.", retry_after=errors.RETRY_AFTER
        ),
    ),
    504: (
        "The model gave no sign of life for the setting `request_timeout`.",
        errors.ModelTimeout("The model gave no answer for 600 seconds."),
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
_CHALLENGE = {"WWW-Authenticate": {"required": True, "schema": {"type": "string", "const": "Bearer"}}}
_HEADERS: Mapping[int, dict[str, Any]] = {401: _CHALLENGE, 429: _RETRY_AFTER, 503: _RETRY_AFTER}

LISTING = (401, 500)
"""How a request fails that asks no model."""
RETRIEVING = (401, 404, 500)
"""How a request fails that only looks for a model."""
ASKING = (400, 401, 404, 408, 413, 429, 500, 502, 503, 504)
"""How a request fails that asks a model."""


def responses(
    success: type[BaseModel],
    failures: tuple[int, ...],
    *,
    description: str,
    example: Mapping[str, Any],
    event: type[BaseModel] | None = None,
    event_example: Mapping[str, Any] | None = None,
) -> Responses:
    """Return the `responses` of a route that answers `success`, or a stream of `event` where it has one."""
    content: dict[str, Any] = {"application/json": {"example": example}}
    if event:
        content["text/event-stream"] = _stream(event, event_example or {})
    documented: Responses = {
        200: {"model": success, "description": description, "headers": _REQUEST_ID, "content": content}
    }
    for status in failures:
        words, error = _CAN_FAIL[status]
        documented[status] = {
            "model": ErrorResponse,
            "description": words,
            "headers": {**_REQUEST_ID, **_HEADERS.get(status, {})},
            "content": {"application/json": {"example": orjson.loads(error_body(error))}},
        }
    return documented


def _stream(event: type[BaseModel], example: Mapping[str, Any]) -> dict[str, Any]:
    """Events: OpenAPI 3.1 has no word for a sequence, and its tools take the schema as that of each event."""
    schema = {"anyOf": [{"$ref": f"#/components/schemas/{model.__name__}"} for model in (event, ErrorResponse)]}
    data = {
        "type": "string",
        "description": "JSON; the words [DONE] after a stream that went well, and an error after one that did not.",
        "anyOf": [{"const": "[DONE]"}, {"contentMediaType": "application/json", "contentSchema": schema}],
    }
    return {
        "schema": {"type": "object", "required": ["data"], "properties": {"data": data}},
        "example": f"data: {orjson.dumps(example).decode()}\n\ndata: [DONE]\n\n",
    }
