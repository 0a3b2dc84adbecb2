"""Failures in OpenAI's shape, with the `code` and `message` of the standard document beside it.

https://platform.openai.com/docs/guides/error-codes. The integer codes are those of the DecentralGPT nodes that call
this API (AIComputingNode, pkg/types/error.go), for which any code but 0 is a failure.
"""

import orjson
from starlette.responses import Response

from gateway import errors

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
"""Characters of a sentence."""


def render_body(error: errors.GatewayError) -> bytes:
    """Return the JSON of a failure; streams send it as their last event."""
    kind, number = next(_TYPES[cls] for cls in type(error).__mro__ if cls in _TYPES)
    # Models and templates may put what a caller wrote into what they say of it.
    message = (
        error.message
        if len(error.message) <= _MAX_MESSAGE_CHARACTERS
        else error.message[:_MAX_MESSAGE_CHARACTERS] + "…"
    )
    detail = {"message": message, "type": kind, "param": error.param, "code": error.code}
    return orjson.dumps({"code": number, "message": message, "error": detail})


def render(error: errors.GatewayError) -> Response:
    """Return the answer to a request that failed."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if isinstance(error, errors.Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.RequestTooLarge | errors.RequestTimeout):
        headers["Connection"] = "close"  # the rest of the body is not read
    if isinstance(error, errors.UnsupportedEncoding):
        headers["Accept-Encoding"] = "gzip"  # RFC 9110, section 12.5.3
    return Response(render_body(error), error.status, headers, media_type="application/json")
