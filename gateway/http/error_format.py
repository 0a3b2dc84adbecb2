"""The error format of a dialect: renders a failure as a response, or as the last event of a stream."""

from collections.abc import Callable
from dataclasses import dataclass

from starlette.responses import Response

from gateway import errors
from gateway.http.delivery import NamedEvent


@dataclass(frozen=True, slots=True)
class ErrorFormat:
    """The two renderings of a failure in one dialect.

    `render` returns the response to a request that failed before its first byte was sent; `error_headers` gives the
    headers that HTTP asks for. `render_event` returns the data of the last event of a stream that failed later.
    """

    render: Callable[[errors.GatewayError], Response]
    render_event: Callable[[errors.GatewayError], bytes | NamedEvent]


def error_headers(error: errors.GatewayError) -> dict[str, str]:
    """Return the headers of the response to a failure, the same in every dialect."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if isinstance(error, errors.Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.RequestTooLarge | errors.RequestTimeout):
        headers["Connection"] = "close"  # the rest of the body is not read
    if isinstance(error, errors.UnsupportedEncoding):
        headers["Accept-Encoding"] = "gzip"  # RFC 9110, section 12.5.3
    return headers
