"""OpenAI's error format, extended by the top-level `code` and `message` of the standard document.

https://platform.openai.com/docs/guides/error-codes. The integer codes are those of the DecentralGPT nodes that call
this API (AIComputingNode, pkg/types/error.go). Nodes take any code but 0 for a failure.
"""

import orjson
from starlette.responses import Response

from gateway import errors
from gateway.http.error_format import ErrorFormat, error_headers

_TYPES: dict[type[errors.GatewayError], tuple[str, int]] = {
    errors.UnsupportedOption: ("invalid_request_error", 1011),
    errors.InvalidRequest: ("invalid_request_error", 1001),
    errors.Unauthorized: ("authentication_error", 1010),
    errors.Forbidden: ("permission_error", 1010),
    errors.NotFound: ("invalid_request_error", 1001),
    errors.MethodNotAllowed: ("invalid_request_error", 1001),
    errors.RequestTimeout: ("invalid_request_error", 1001),
    errors.RequestTooLarge: ("invalid_request_error", 1001),
    errors.UnsupportedEncoding: ("invalid_request_error", 1001),
    errors.RateLimited: ("rate_limit_error", 1017),
    errors.Overloaded: ("overloaded_error", 1017),
    errors.StorageFull: ("server_error", 1008),
    errors.ModelFailed: ("server_error", 1007),
    errors.ModelTimeout: ("server_error", 1005),
    errors.GatewayError: ("server_error", 5000),
}


_MAX_MESSAGE_CHARACTERS = 4000
"""Characters of an error message; the rest is cut off."""


def render_body(error: errors.GatewayError) -> bytes:
    """Return the JSON of a failure. It is the body of a response, or the data of the last event of a stream."""
    kind, number = next(_TYPES[cls] for cls in type(error).__mro__ if cls in _TYPES)
    # Models and chat templates may quote the caller's text in their messages.
    message = (
        error.message
        if len(error.message) <= _MAX_MESSAGE_CHARACTERS
        else error.message[:_MAX_MESSAGE_CHARACTERS] + "…"
    )
    detail = {"message": message, "type": kind, "param": error.param, "code": error.code}
    return orjson.dumps({"code": number, "message": message, "error": detail})


def render(error: errors.GatewayError) -> Response:
    """Return the response to a request that failed."""
    return Response(render_body(error), error.status, error_headers(error), media_type="application/json")


OPENAI_ERRORS = ErrorFormat(render, render_body)
