"""The failures of requests.

GatewayError                          500  a fault of the gateway itself
├── InvalidRequest                    400  the request is wrong; `param` names the field
│   ├── UnsupportedOption             400  the request is valid, but the model cannot carry out an option of it
│   ├── ContextLengthExceeded         400  the prompt exceeds the context of the model
│   └── NotReady                      400  the task has no outputs: it has not completed
├── Unauthorized                      401  the API key is missing or unknown
├── Forbidden                         403  the API key is known, but lacks the permission
├── NotFound                          404
│   ├── ModelNotFound                 404
│   ├── TaskNotFound                  404  the task does not exist, or belongs to another API key
│   └── FileNotFound                  404  the file does not exist, or has been removed
├── MethodNotAllowed                  405
├── RequestTimeout                    408  the body did not arrive in time
├── RequestTooLarge                   413
├── UnsupportedEncoding               415  the content encoding of the body is not gzip
├── RateLimited                       429  the caller exceeds its rate limit; `retry_after`
│   └── QueueFull                     429  the queue of the model is full; `retry_after`
├── ModelFailed                       502  Triton or the model failed
├── Overloaded                        503  the service cannot take the request now; `retry_after`
│   └── ServerUnavailable             503  the Triton server of the model does not answer
│       └── ModelProcessUnavailable   503  the server answers, but the process of the model does not
├── ModelTimeout                      504  the model did not respond in time
└── StorageFull                       507  the file store has no room for an output

The core raises these errors and knows no wire format. Each dialect renders them in its own error format.
"""

from typing import ClassVar

RETRY_AFTER_SECONDS = 2
"""`retry_after` in seconds where a server is down or full and no better estimate exists."""


class GatewayError(Exception):
    """A failure of a request. `message` is a sentence for the caller.

    Each subclass has the HTTP `status` and the machine-readable `code` of its kind.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, retry_after: int | None = None) -> None:
        """`param` is the path of the field that is wrong, as in `messages[0].content`; `retry_after` is in seconds."""
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after


class InvalidRequest(GatewayError):
    """The request is wrong for every model."""

    status = 400
    code = "invalid_value"


class UnsupportedOption(InvalidRequest):
    """The request is valid, but this model or this version does not support one of its options."""

    code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    """The prompt has more tokens than the context of the model."""

    code = "context_length_exceeded"


class NotReady(InvalidRequest):
    """The task has no outputs: it has not ended, or it has failed.

    Clients of OpenAI repeat a request that was answered with 409, so this is a 400.
    """

    code = "not_ready"


class Unauthorized(GatewayError):
    """The request has no API key, or an unknown one."""

    status = 401
    code = "invalid_api_key"


class Forbidden(GatewayError):
    """The API key is known, but does not permit this request."""

    status = 403
    code = "permission_denied"


class NotFound(GatewayError):
    """No resource exists at this path."""

    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """No server has a model of this name."""

    code = "model_not_found"


class TaskNotFound(NotFound):
    """No task has this id, or the task belongs to another API key."""

    code = "task_not_found"


class FileNotFound(NotFound):
    """No file has this id, or its retention time is over and it was removed."""

    code = "file_not_found"


class MethodNotAllowed(GatewayError):
    """The path exists, but does not support this HTTP method."""

    status = 405
    code = "method_not_allowed"


class RequestTimeout(GatewayError):
    """The body did not arrive within the seconds of the setting `body_timeout`."""

    status = 408
    code = "request_timeout"


class RequestTooLarge(GatewayError):
    """The body exceeds the setting `max_body_bytes`, or its content exceeds another limit of a request."""

    status = 413
    code = "request_too_large"


class UnsupportedEncoding(GatewayError):
    """The body has a content encoding other than gzip."""

    status = 415
    code = "unsupported_encoding"


class RateLimited(GatewayError):
    """The caller exceeds its rate limit or its quota."""

    status = 429
    code = "rate_limit_exceeded"


class QueueFull(RateLimited):
    """The queue of the model is full."""

    code = "overloaded"


class Overloaded(GatewayError):
    """The service cannot take the request now: no server is up, memory is short, or the gateway shuts down."""

    status = 503
    code = "overloaded"


class ServerUnavailable(Overloaded):
    """The Triton server of the model does not answer."""


class ModelProcessUnavailable(ServerUnavailable):
    """The Triton server answers, but the process in which it runs the model does not."""


class ModelFailed(GatewayError):
    """Triton or the model failed while it processed the request."""

    status = 502
    code = "model_failed"


class ModelTimeout(GatewayError):
    """The model sent no response within the seconds of the setting `request_timeout`."""

    status = 504
    code = "model_timeout"


class StorageFull(GatewayError):
    """The file store or the database of the tasks has no room."""

    status = 507
    code = "storage_full"
