"""Status codes of calls: https://github.com/grpc/grpc/blob/master/doc/statuscodes.md"""

from enum import IntEnum


class Status(IntEnum):
    """gRPC's status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class RpcError(Exception):
    """A call failed."""

    def __init__(self, status: Status, message: str) -> None:
        """`message` is the server's, or describes what happened to the connection."""
        super().__init__(f"{status.name}: {message}")
        self.status = status
        self.message = message


# https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
_BY_HTTP = {
    b"400": Status.INTERNAL,
    b"401": Status.UNAUTHENTICATED,
    b"403": Status.PERMISSION_DENIED,
    b"404": Status.UNIMPLEMENTED,
    b"429": Status.UNAVAILABLE,
    b"502": Status.UNAVAILABLE,
    b"503": Status.UNAVAILABLE,
    b"504": Status.UNAVAILABLE,
}
# "Errors" of PROTOCOL-HTTP2.md: REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY.
_BY_RESET = {
    0x7: Status.UNAVAILABLE,
    0x8: Status.CANCELLED,
    0xB: Status.RESOURCE_EXHAUSTED,
    0xC: Status.PERMISSION_DENIED,
}


def from_trailers(fields: dict[bytes, bytes]) -> tuple[Status, bytes]:
    """Return the status in the trailers of a call, and its percent-encoded message."""
    code = fields.get(b"grpc-status", b"")
    if not code.isdigit():
        return from_headers(fields) or (Status.UNKNOWN, b"The server ended the call without a status.")
    known = len(code) <= 2 and int(code) <= max(Status)
    return (Status(int(code)) if known else Status.UNKNOWN), fields.get(b"grpc-message", b"")


def from_headers(fields: dict[bytes, bytes]) -> tuple[Status, bytes] | None:
    """Return the failure in the first headers of a call: None if they are gRPC's."""
    http, kind = fields.get(b":status", b"200"), fields.get(b"content-type", b"application/grpc")
    if http != b"200":
        return _BY_HTTP.get(http, Status.UNKNOWN), b"The server answered with HTTP status " + http + b"."
    if not kind.startswith(b"application/grpc"):
        return Status.UNKNOWN, b"The server answered with " + kind + b"."
    return None


def from_rst_stream(code: int) -> Status:
    """Return the status of a stream that the server reset with an HTTP/2 error code."""
    return _BY_RESET.get(code, Status.INTERNAL)
