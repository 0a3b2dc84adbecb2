"""Calls to one server, whatever becomes of the connections to it."""

import asyncio
import socket
from contextlib import suppress

from gateway.rpc.call import Call
from gateway.rpc.connection import Connection
from gateway.rpc.status import RpcError, Status

_CONNECT_SECONDS = 5.0
_SILENCE_MILLISECONDS = 20_000
"""How long what was sent may stay unacknowledged: a host that vanished says nothing."""
_PROBES = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": _SILENCE_MILLISECONDS}


class Channel:
    """Connects when it is first asked, and again when the connection is gone."""

    def __init__(self, url: str) -> None:
        """`url` is `host:port`, an IPv6 address in brackets. Raises `ValueError`."""
        host, _, port = url.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"{url!r} is not host:port")
        self._host, self._port = host.strip("[]"), int(port)
        self._authority = url.encode()
        self._heads: dict[str, bytes] = {}
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._ending: list[Connection] = []
        """Connections on which no call may begin, and some go on."""

    async def call(self, path: str, message: bytes, *, idle: float) -> Call:
        """Send `message`, the only one of the call. `path` is `/package.Service/Method`.

        A `read` of its answer fails after `idle` seconds without one. Raises `RpcError`.
        """
        connection = self._connection
        while connection is None or not connection.usable:
            connection = await self._connect()
        return await connection.call(self._head(path), message, idle)

    async def unary(self, path: str, message: bytes, *, timeout: float) -> bytes:
        """The one message of the answer. Raises `RpcError`, also when it takes longer than `timeout` seconds."""
        call = None
        try:
            async with asyncio.timeout(timeout):
                call = await self.call(path, message, idle=2 * timeout)
                answer = await call.read()
                if answer is None or await call.read() is not None:
                    raise RpcError(Status.INTERNAL, "The server did not answer with one message.")
                return answer
        except TimeoutError:
            raise RpcError(Status.DEADLINE_EXCEEDED, f"The server did not answer for {timeout:g} seconds.") from None
        finally:
            if call:
                call.cancel()

    async def close(self) -> None:
        """Close the connections; calls in flight fail."""
        if self._connecting:
            self._connecting.cancel()
            with suppress(asyncio.CancelledError, RpcError):
                await self._connecting
        for connection in (*self._ending, *([self._connection] if self._connection else [])):
            connection.close()

    async def _connect(self) -> Connection:
        """The connection that everybody waits for who wants one now."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._make())
            self._connecting.add_done_callback(self._connected)
        return await asyncio.shield(self._connecting)

    def _connected(self, task: asyncio.Task[Connection]) -> None:
        self._connecting = None
        if task.cancelled() or task.exception():
            return
        self._ending = [old for old in (*self._ending, self._connection) if old and not old.closed]
        self._connection = task.result()

    async def _make(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                transport, connection = await loop.create_connection(Connection, self._host, self._port)
        except TimeoutError:
            raise RpcError(Status.UNAVAILABLE, "The server takes no connection.") from None
        except OSError as error:
            raise RpcError(Status.UNAVAILABLE, f"The server cannot be reached: {error}") from None
        found: socket.socket = transport.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _PROBES.items():
            if hasattr(socket, name):  # not on every system
                found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return connection

    def _head(self, path: str) -> bytes:
        """The block of a call's headers: literals that nobody indexes, so that no state is shared with the server.

        https://www.rfc-editor.org/rfc/rfc7541#section-6.2.2
        """
        block = self._heads.get(path)
        if block is None:
            fields = (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", path.encode()),
                (b":authority", self._authority),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                (b"user-agent", b"tritonic"),
            )
            block = b"".join(b"\0" + _string(name) + _string(value) for name, value in fields)
            self._heads[path] = block
        return block


def _string(value: bytes) -> bytes:
    """https://www.rfc-editor.org/rfc/rfc7541#section-5.2, with the length in up to two bytes more."""
    size = len(value)
    if size < 127:
        return bytes([size]) + value
    return bytes([127, (size - 127) & 0x7F | 0x80, (size - 127) >> 7]) + value
