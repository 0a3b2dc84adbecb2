"""The transport of `gateway.triton.client`: the interface of a gRPC client for one endpoint.

There are two implementations. `gateway.triton.rpc` is an HTTP/2 client of our own, which is cheaper for each token.
`gateway.triton.grpc_transport` is grpcio, which also speaks TLS. Both map failures to `RpcError` and keep the same
rules for cancellation, backpressure and idle timeouts.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias

from gateway.settings import Settings
from gateway.triton.rpc.channel import Channel

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Names in lower case with values: gRPC metadata."""


class Call(Protocol):
    """A call whose request is sent. One task reads it."""

    @property
    def has_message(self) -> bool:
        """True if the next message has arrived already."""
        ...

    @property
    def done(self) -> bool:
        """True once the call has ended, was cancelled, or lost its connection. Unread messages may remain."""
        ...

    async def read(self) -> bytes | None:
        """Return the next message, or None after the last.

        Raises `RpcError` when the call fails or was cancelled, and `TimeoutError` after the call's `idle` seconds
        without a message.
        """
        ...

    def cancel(self) -> None:
        """Cancel the call at the server, unless it is done, and drop what was not read."""
        ...


class Transport(Protocol):
    """Calls to one endpoint. It connects with the first call, and again after the connection is lost."""

    async def call(self, path: str, message: bytes, *, idle: float, headers: Headers = ()) -> Call:
        """Send `message`, the only one of the call. `path` is `/package.Service/Method`.

        The call carries `headers` beside those of the transport.

        A failure is raised here or by the first `read` as `RpcError`. Raises `TimeoutError` when the server takes
        nothing for `idle` seconds.
        """
        ...

    async def unary(self, path: str, message: bytes, *, timeout: float) -> bytes:
        """Send `message` and return the one message of the response.

        Raises `RpcError`, with status `DEADLINE_EXCEEDED` after `timeout` seconds.
        """
        ...

    async def close(self) -> None:
        """Close the connection. Calls in flight fail with status `CANCELLED`, and so do later ones."""
        ...


Connect: TypeAlias = Callable[[str, Headers], Transport]
"""Makes the transport to a URL, `host:port` or `unix:/path`, whose calls all carry the given headers."""


def connector(settings: Settings) -> Connect:
    """Return the transport that the settings `triton_transport` and `triton_tls_…` ask for.

    Raises `OSError` when a file of TLS cannot be read.
    """
    files = settings.triton_tls_ca, settings.triton_tls_cert, settings.triton_tls_key
    if not any(files) and settings.triton_transport != "grpcio":
        return Channel
    # grpcio takes 8 MB of memory, which most gateways do not need.
    from gateway.triton.grpc_transport import TLS, GrpcTransport

    if any(files):
        return partial(GrpcTransport, tls=TLS(*(_read(path) for path in files)))
    return GrpcTransport


def _read(path: Path | None) -> bytes | None:
    return path.read_bytes() if path else None
