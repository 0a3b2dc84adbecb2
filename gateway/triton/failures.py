"""Translation of Triton's failures to errors of the gateway."""

from gateway.errors import (
    RETRY_AFTER_SECONDS,
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    ModelFailed,
    ModelNotFound,
    ModelProcessUnavailable,
    ModelTimeout,
    Overloaded,
    QueueFull,
    RateLimited,
    ServerUnavailable,
    UnsupportedOption,
)
from gateway.triton.rpc.status import Status


class ProtocolRestricted(ServerUnavailable):
    """Triton restricts the protocol (`--grpc-restricted-protocol`), and the call carried no secret or a wrong one."""


_UNAVAILABLE = "The model's server is not available; try again later."
_STOPPING = "Server not ready"
"""Triton's message once it is stopping; in a stream it comes without a status."""
_RESTRICTED = "This protocol is restricted"
_BY_CODE: dict[str, type[GatewayError]] = {
    "context_length_exceeded": ContextLengthExceeded,
    "invalid_value": InvalidRequest,
    "unsupported_option": UnsupportedOption,
    "overloaded": QueueFull,
    "unavailable": ServerUnavailable,
    "cancelled": ModelFailed,
    "engine_failed": ModelFailed,
}
_BY_STATUS: dict[Status, type[GatewayError]] = {
    Status.INVALID_ARGUMENT: InvalidRequest,
    Status.NOT_FOUND: ModelNotFound,
    Status.UNAVAILABLE: ServerUnavailable,
    Status.RESOURCE_EXHAUSTED: QueueFull,
    Status.DEADLINE_EXCEEDED: ModelTimeout,
}


def to_gateway_error(status: Status | None, message: str | None) -> GatewayError:
    """Translate a failure. `status` is None for an error message inside a stream.

    Messages of our backends begin with `[code]` or `[code:input]` (docs/architecture.md).
    """
    message = message or "Triton failed without a message."
    kind: type[GatewayError] = _BY_STATUS.get(status, ModelFailed) if status else ModelFailed
    param = None
    if message.startswith("[") and "]" in message:
        tag, sentence = message[1:].split("]", 1)
        code, _, name = tag.partition(":")
        if code in _BY_CODE:
            kind, param, message = _BY_CODE[code], name or None, sentence.strip()
            if kind is ServerUnavailable:
                message = _UNAVAILABLE
    elif "unknown model" in message:
        kind = ModelNotFound  # unloaded just now; a stream reports that by its message only
    elif "is not healthy" in message:
        # Triton's message is about its sockets and processes: callers do not see it.
        kind, message = ModelProcessUnavailable, _UNAVAILABLE
    elif message == _STOPPING:
        kind, message = ServerUnavailable, _UNAVAILABLE
    elif kind is ServerUnavailable:
        kind, message = ProtocolRestricted if message.startswith(_RESTRICTED) else ServerUnavailable, _UNAVAILABLE
    return kind(
        message, param=param, retry_after=RETRY_AFTER_SECONDS if issubclass(kind, Overloaded | RateLimited) else None
    )
