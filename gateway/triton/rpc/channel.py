"""Calls to one server over HTTP/2, across the connections to it."""

import asyncio
import socket
from collections.abc import Sequence

from gateway.triton.rpc.call import Call
from gateway.triton.rpc.connection import CONNECTION_LOST, Connection
from gateway.triton.rpc.headers import encode_block, encode_fields
from gateway.triton.rpc.status import RpcError, Status

_CONNECT_SECONDS = 5.0
_MAX_ATTEMPTS = 2
"""Attempts of a call. A call that did not reach the server is retried on a new connection."""
_CLOSED = "The connection was closed."
_TCP_USER_TIMEOUT_MILLISECONDS = 20_000
"""Milliseconds that sent data may stay unacknowledged. A host that vanished does not close its connections."""
_KEEPALIVE_OPTIONS = {
    "TCP_KEEPIDLE": 10,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 2,
    "TCP_USER_TIMEOUT": _TCP_USER_TIMEOUT_MILLISECONDS,
}


class Channel:
    """The transport over HTTP/2 (`gateway.triton.transport.Transport`).

    It connects with the first call, and again after the connection is lost.
    """

    def __init__(self, url: str, metadata: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """`url` is `host:port`, with an IPv6 address in brackets, or `unix:/path` of a socket. Raises `ValueError`.

        Every call carries the headers `metadata`.
        """
        self._host, self._port, self._path = "", 0, url.removeprefix("unix:") if url.startswith("unix:/") else None
        if self._path is None:
            host, _, port = url.rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 2**16:
                raise ValueError(f"{url!r} is neither host:port nor unix:/path")
            self._host, self._port = host.strip("[]"), int(port)
        self._authority = b"localhost" if self._path else url.encode()
        self._metadata = tuple(metadata)
        self._header_blocks: dict[str, bytes] = {}
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._draining: list[Connection] = []
        """Connections that take no new calls and still have some."""
        self._closed = False

    async def call(
        self, path: str, message: bytes, *, idle: float, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> Call:
        """Send `message`, the only one of the call. `path` is `/package.Service/Method`.

        The call carries `headers` beside those of the channel.

        Raises `RpcError`, and `TimeoutError` when the server takes nothing for `idle` seconds. Each `read` raises
        `TimeoutError` after `idle` seconds without a message.
        """
        head = self._header_block(path)
        if headers:
            head += encode_fields(headers)
        for _ in range(_MAX_ATTEMPTS):
            connection = self._connection
            if connection is None or not connection.accepts_calls:
                connection = await self._connect()
            if call := await connection.call(head, message, idle):
                return call
        raise RpcError(Status.UNAVAILABLE, CONNECTION_LOST)

    async def unary(self, path: str, message: bytes, *, timeout: float) -> bytes:
        """Return the one message of the response. Raises `RpcError`, also after `timeout` seconds."""
        call = connection = None
        arrivals_before = 0
        try:
            async with asyncio.timeout(timeout):
                call = await self.call(path, message, idle=2 * timeout)
                if connection := self._connection:
                    arrivals_before = connection.arrivals
                answer = await call.read()
                if answer is None or await call.read() is not None:
                    raise RpcError(Status.INTERNAL, "The server did not answer with one message.")
                return answer
        except TimeoutError:
            if connection:
                connection.drain_if_silent(arrivals_before)
            raise RpcError(Status.DEADLINE_EXCEEDED, f"The server did not answer for {timeout:g} seconds.") from None
        finally:
            if call:
                call.cancel()

    async def close(self) -> None:
        """Close the connections. Calls in flight fail with status `CANCELLED`, and so do later ones."""
        self._closed = True
        if self._connecting:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        for connection in (*self._draining, *([self._connection] if self._connection else [])):
            connection.close()

    async def _connect(self) -> Connection:
        """Return a new connection, which all calls that wait for one share. Raises `RpcError`."""
        if self._closed:
            raise RpcError(Status.CANCELLED, _CLOSED)
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._open_connection())
            self._connecting.add_done_callback(self._on_connected)
        connecting = self._connecting
        await asyncio.wait([connecting])  # a cancelled caller does not stop the task
        if connecting.cancelled():
            raise RpcError(Status.CANCELLED, _CLOSED)
        return connecting.result()

    def _on_connected(self, task: asyncio.Task[Connection]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # no caller may be left to raise it to

    async def _open_connection(self) -> Connection:
        loop = asyncio.get_running_loop()
        transport = None
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                if self._path:
                    transport, connection = await loop.create_unix_connection(Connection, self._path)
                else:
                    transport, connection = await self._connect_to_host(loop)
                    _enable_keepalive(transport.get_extra_info("socket"))
                await connection.wait_for_settings()
        except BaseException as error:
            if transport:
                transport.abort()
            if isinstance(error, TimeoutError):
                raise RpcError(Status.UNAVAILABLE, "The connection to the server timed out.") from None
            if isinstance(error, OSError | UnicodeError):  # an invalid host name raises UnicodeError
                raise RpcError(Status.UNAVAILABLE, f"The server cannot be reached: {error}") from None
            raise
        self._draining = [old for old in (*self._draining, self._connection) if old and not old.closed]
        self._connection = connection
        return connection

    async def _connect_to_host(self, loop: asyncio.AbstractEventLoop) -> tuple[asyncio.Transport, Connection]:
        """Connect to the first address of the host that accepts. Raises `OSError` and `UnicodeError`.

        The name is resolved here: `create_connection` of uvloop, when it is cancelled, leaves its resolver's future
        behind, and the failure of that future is logged as never retrieved.
        """
        addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        failure: OSError | None = None
        for _, _, _, _, address in addresses:
            try:
                return await loop.create_connection(Connection, str(address[0]), self._port)
            except OSError as error:
                failure = failure or error
        raise failure or OSError(f"The name {self._host} has no address")

    def _header_block(self, path: str) -> bytes:
        """Return the encoded headers of a call."""
        block = self._header_blocks.get(path)
        if block is None:
            fields = (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", path.encode()),
                (b":authority", self._authority),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                (b"user-agent", b"tritonic"),
                *self._metadata,
            )
            block = self._header_blocks[path] = encode_block(fields)
        return block


def _enable_keepalive(connection: socket.socket) -> None:
    """Let the kernel notice a host that vanished."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE_OPTIONS.items():
        if hasattr(socket, name):  # depends on the system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
