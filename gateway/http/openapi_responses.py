"""The `responses` of a route in the OpenAPI document: every status that it can return, with its body and headers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, TypeAlias

import orjson
from pydantic import BaseModel

from gateway import errors

Responses: TypeAlias = dict[int | str, dict[str, Any]]

_JSON = "application/json"

LIST_FAILURES = (401, 500)
"""Failures of a request that lists models."""
RETRIEVE_FAILURES = (401, 404, 500)
"""Failures of a request that only looks up a model."""
LOOKUP_FAILURES = (400, 401, 404, 500, 503)
"""Failures of a request that reads a database."""
INFERENCE_FAILURES = (400, 401, 404, 408, 413, 415, 429, 500, 502, 503, 504)
"""Failures of a request that runs a model."""
STORED_OUTPUT_FAILURES = (*INFERENCE_FAILURES, 507)
"""Failures of a request that runs a model and stores its output."""


def omitted() -> Any:
    """Default factory of a response field that may be absent and is never null."""


@dataclass(frozen=True, slots=True)
class FailureDoc:
    """The documentation of one status: a description, and the error of the example."""

    description: str
    example: errors.GatewayError


FAILURES: Mapping[int, FailureDoc] = {
    400: FailureDoc(
        "The request is invalid, or uses an option that the model does not support.",
        errors.InvalidRequest(
            "Invalid value for 'temperature': Input should be less than or equal to 2.", param="temperature"
        ),
    ),
    401: FailureDoc(
        "The request has no API key, or an invalid one.",
        errors.Unauthorized("The API key in the header 'Authorization' is invalid."),
    ),
    404: FailureDoc(
        "No server has a model of this name.",
        errors.ModelNotFound("The model 'gpt-7' does not exist. Models: smollm2-135m-instruct.", param="model"),
    ),
    408: FailureDoc(
        "The body did not arrive within the setting `body_timeout`.",
        errors.RequestTimeout("The body did not arrive within 120 seconds."),
    ),
    413: FailureDoc(
        "The body is larger than the setting `max_body_bytes`, or its content exceeds another limit.",
        errors.RequestTooLarge("The body is larger than the limit of 33554432 bytes."),
    ),
    415: FailureDoc(
        "The body has a content encoding other than gzip.",
        errors.UnsupportedEncoding(
            "The content encoding 'br' is not supported. Send the body uncompressed or as gzip.",
            param="Content-Encoding",
        ),
    ),
    429: FailureDoc(
        "The caller exceeds its rate limit, or the queue of the model is full.",
        errors.QueueFull("1024 requests are waiting already.", retry_after=errors.RETRY_AFTER_SECONDS),
    ),
    500: FailureDoc("The gateway failed.", errors.GatewayError("The gateway failed because of an internal error.")),
    502: FailureDoc("Triton or the model failed.", errors.ModelFailed("The engine stopped.")),
    503: FailureDoc(
        "The server of the model does not respond, or the gateway is shutting down.",
        errors.ServerUnavailable(
            "No server that may have the model 'smollm2-135m-instruct' is reachable.",
            retry_after=errors.RETRY_AFTER_SECONDS,
        ),
    ),
    504: FailureDoc(
        "The model sent no response for the time of the setting `request_timeout`.",
        errors.ModelTimeout("The model sent no response for 600 seconds."),
    ),
    507: FailureDoc(
        "The output of the model cannot be stored.",
        errors.StorageFull("The file store is full: the file was not stored."),
    ),
}

_REQUEST_ID = {
    "x-request-id": {
        "description": "The id of this request: the one that the caller sent, or a new one.",
        "required": True,
        "schema": {"type": "string"},
    }
}
_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds to wait before a retry.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
}
_HEADERS: Mapping[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"required": True, "schema": {"type": "string", "const": "Bearer"}}},
    415: {"Accept-Encoding": {"required": True, "schema": {"type": "string", "const": "gzip"}}},
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseDocs:
    """Documents the responses of one dialect's routes.

    `error_model` is the model of error bodies, and `error_body` renders an example of one as JSON. `error_media_type`
    is their media type; a dialect whose errors are not `application/json` lists `error_model` among its
    `stream_events`. `stream_end` is the data of the last event of a complete stream, a word and not JSON; None: there
    is no such event. `descriptions` replace those of `FAILURES`, by status.
    """

    error_model: type[BaseModel]
    error_body: Callable[[errors.GatewayError], bytes]
    error_media_type: str = _JSON
    stream_end: str | None = None
    descriptions: Mapping[int, str] = field(default_factory=dict)

    def responses(
        self,
        success: type[BaseModel] | UnionType,
        failures: tuple[int, ...],
        *,
        description: str,
        example: Mapping[str, Any],
        event: type[BaseModel] | None = None,
        event_example: Mapping[str, Any] | None = None,
        more_events: tuple[type[BaseModel], ...] = (),
    ) -> Responses:
        """Return the `responses` of a route that returns `success` or, if `event` is given, a stream of `event`.

        `failures` are statuses. `more_events` are the models of other events of the same stream. The `type` of an
        event, if it has one, is also the name of the server-sent event.
        """
        content: dict[str, Any] = {"application/json": {"example": example}}
        if event:
            content["text/event-stream"] = self._stream((event, *more_events), event_example or {})
        documented: Responses = {
            200: {"model": success, "description": description, "headers": _REQUEST_ID, "content": content}
        }
        documented |= self._failures(failures)
        return documented

    def file_responses(
        self,
        media_types: tuple[str, ...],
        failures: tuple[int, ...],
        *,
        description: str,
        event: type[BaseModel],
        event_example: Mapping[str, Any],
        more_events: tuple[type[BaseModel], ...] = (),
    ) -> Responses:
        """Return the `responses` of a route that returns a file of one of `media_types`, or a stream of `event`."""
        content: dict[str, Any] = {
            media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types
        }
        content["text/event-stream"] = self._stream((event, *more_events), event_example)
        success = {"description": description, "headers": _REQUEST_ID, "content": content}
        return {200: success, **self._failures(failures)}

    def _failures(self, failures: tuple[int, ...]) -> Responses:
        documented: Responses = {}
        for status in failures:
            failure = FAILURES[status]
            body: dict[str, Any] = {"example": orjson.loads(self.error_body(failure.example))}
            documented[status] = {
                "description": self.descriptions.get(status, failure.description),
                "headers": {**_REQUEST_ID, **_HEADERS.get(status, {})},
                "content": {self.error_media_type: body},
            }
            if self.error_media_type == _JSON:
                documented[status]["model"] = self.error_model
            else:  # FastAPI documents a model as JSON
                body["schema"] = {"$ref": f"#/components/schemas/{self.error_model.__name__}"}
        return documented

    def _stream(self, events: tuple[type[BaseModel], ...], example: Mapping[str, Any]) -> dict[str, Any]:
        """Document a stream by the schema of one event, as OpenAPI 3.1 cannot describe a sequence of events."""
        models: tuple[type[BaseModel], ...] = (*events, self.error_model)
        schema = {"anyOf": [{"$ref": f"#/components/schemas/{model.__name__}"} for model in models]}
        event = {"contentMediaType": "application/json", "contentSchema": schema}
        data: dict[str, Any] = {"type": "string", "description": "JSON. An error event ends a failed stream.", **event}
        end = ""
        if self.stream_end is not None:
            data = {
                "type": "string",
                "description": f"JSON; {self.stream_end} ends a complete stream, and an error event a failed one.",
                "anyOf": [{"const": self.stream_end}, event],
            }
            end = f"data: {self.stream_end}\n\n"
        name = f"event: {example['type']}\n" if "type" in example else ""
        return {
            "schema": {"type": "object", "required": ["data"], "properties": {"data": data}},
            "example": f"{name}data: {orjson.dumps(example).decode()}\n\n{end}",
        }
