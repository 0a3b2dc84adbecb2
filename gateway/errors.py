"""Every way in which a request can fail.

GatewayError
├── InvalidRequest            400  the request is wrong; `param` says where
│   ├── UnsupportedOption     400  the request is right, but the model cannot carry this option
│   └── ContextLengthExceeded 400  the prompt does not fit the model
├── Unauthorized              401  no key, or a wrong one
├── Forbidden                 403  a key that may not do this
├── NotFound                  404
│   ├── ModelNotFound         404
│   ├── TaskNotFound          404  there is none, or it is another key's
│   └── FileGone              404  there is none, or no more
├── MethodNotAllowed          405
├── RequestTimeout            408  the body did not arrive in time
├── RequestTooLarge           413
├── UnsupportedEncoding       415  the body is packed in a way that is not undone here
├── RateLimited               429  the caller asks too much; `retry_after`
│   └── QueueFull             429  more requests wait for the model than may; `retry_after`
├── Overloaded                503  the service cannot take it now; `retry_after`
│   └── ServerGone         503  the model's server does not answer
├── ModelFailed               502  Triton or the model failed
├── ModelTimeout              504  the model did not answer in time
└── StorageFull               507  what was made cannot be kept

The core raises these and knows no wire format; each dialect renders them in its own shape.
"""

from typing import ClassVar

RETRY_AFTER_SECONDS = 2
"""Seconds after which a caller may try again, when a server is down or full and nothing better is known."""


class GatewayError(Exception):
    """A failure with a sentence for the caller."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, retry_after: int | None = None) -> None:
        """`param` is the path of the field at fault; `retry_after` is in seconds."""
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after


class InvalidRequest(GatewayError):
    """The request is wrong, and would be wrong for any model."""

    status = 400
    code = "invalid_value"


class UnsupportedOption(InvalidRequest):
    """The request is right, but this model or this version cannot carry an option of it."""

    code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    """The prompt has more tokens than the model's context."""

    code = "context_length_exceeded"


class Unauthorized(GatewayError):
    """The request bears no key, or one that is not known."""

    status = 401
    code = "invalid_api_key"


class Forbidden(GatewayError):
    """The key is known and may not do this."""

    status = 403
    code = "permission_denied"


class NotFound(GatewayError):
    """There is nothing at this address."""

    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """No server holds a model of this name."""

    code = "model_not_found"


class TaskNotFound(NotFound):
    """There is no task of this id, or another key has made it."""

    code = "task_not_found"


class FileNotFound(NotFound):
    """There is no file of this id, or it was removed when its time was over."""

    code = "file_not_found"


class MethodNotAllowed(GatewayError):
    """The address exists and does not take this method."""

    status = 405
    code = "method_not_allowed"


class RequestTimeout(GatewayError):
    """The body did not arrive within the setting `body_timeout`."""

    status = 408
    code = "request_timeout"


class RequestTooLarge(GatewayError):
    """The body is larger than the setting `max_body_bytes`, or it holds more than a request may."""

    status = 413
    code = "request_too_large"


class UnsupportedEncoding(GatewayError):
    """The body is packed by something else than gzip."""

    status = 415
    code = "unsupported_encoding"


class RateLimited(GatewayError):
    """This caller asks for more than its share."""

    status = 429
    code = "rate_limit_exceeded"


class QueueFull(RateLimited):
    """The model's queue is full."""

    code = "overloaded"


class Overloaded(GatewayError):
    """The service cannot take the request now: no server is up, or it stops."""

    status = 503
    code = "overloaded"


class ServerUnavailable(Overloaded):
    """The server that holds the model does not answer."""


class ModelProcessUnavailable(ServerUnavailable):
    """The server answers, and the process in which it runs the model does not."""


class ModelFailed(GatewayError):
    """Triton or the model failed while it worked on the request."""

    status = 502
    code = "model_failed"


class ModelTimeout(GatewayError):
    """The model gave no sign of life for the setting `request_timeout`."""

    status = 504
    code = "model_timeout"


class StorageFull(GatewayError):
    """The store of files has no room."""

    status = 507
    code = "storage_full"
