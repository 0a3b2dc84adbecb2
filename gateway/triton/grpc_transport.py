"""The transport on grpcio's asyncio API: for TLS, and as the reference for the HTTP/2 client in tests.

It differs from `gateway.triton.rpc` in three ways. It reads one message ahead of its reader. `idle` limits the whole
upload of a request, because grpcio does not report progress. A new connection is tried at most once a second.
"""

import asyncio
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from gateway.triton.rpc.status import RpcError, Status

_CLOSED = "The connection was closed."
_MAX_MESSAGE_BYTES = 2**28
_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    # Backpressure: unread data stays within a fixed window of 64 KiB. The probe would let the window grow to megabytes.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 65_535),
    # A server that comes back is found at once; grpcio waits up to two minutes. The middle one limits a connection.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A host that vanished is noticed by TCP_USER_TIMEOUT, which grpcio sets to the timeout here. Servers refuse pings
    # that come more often than every five minutes.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.primary_user_agent", "tritonic"),
)


@dataclass(frozen=True, slots=True)
class TLS:
    """Files in PEM, as bytes."""

    ca: bytes | None = None
    """Certificates that the server's must be signed by. None: those that grpcio brings along."""
    certificate: bytes | None = None
    """The client's certificate, for servers that ask for one."""
    key: bytes | None = None
    """The private key of `certificate`."""


class GrpcTransport:
    """Calls to one endpoint (`gateway.triton.transport.Transport`). Create it inside a running event loop."""

    def __init__(self, url: str, metadata: Sequence[tuple[bytes, bytes]] = (), tls: TLS | None = None) -> None:
        """`url` is `host:port`, an IPv6 address in brackets, or `unix:/path`. Calls carry `metadata` as headers."""
        self._metadata = tuple((name.decode(), value.decode()) for name, value in metadata)
        self._calls: weakref.WeakSet[GrpcCall] = weakref.WeakSet()
        self._closed = False
        if tls is None:
            self._channel = grpc.aio.insecure_channel(url, options=_OPTIONS)
        else:
            credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
            self._channel = grpc.aio.secure_channel(url, credentials, options=_OPTIONS)

    async def call(
        self, path: str, message: bytes, *, idle: float, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> "GrpcCall":
        """Send `message`. A failure other than `TimeoutError` is raised by the first `read`."""
        if self._closed:
            raise RpcError(Status.CANCELLED, _CLOSED)
        metadata = self._metadata + tuple((name.decode(), value.decode()) for name, value in headers)
        call = GrpcCall(self._channel.stream_stream(path)(metadata=metadata), idle)
        self._calls.add(call)
        try:
            await call.send(message)
        except BaseException:
            call.cancel()
            raise
        return call

    async def unary(self, path: str, message: bytes, *, timeout: float) -> bytes:
        """Return the one message of the response. Raises `RpcError`."""
        call = None
        try:
            async with asyncio.timeout(timeout):
                call = await self.call(path, message, idle=2 * timeout)
                response = await call.read()
                if response is None or await call.read() is not None:
                    raise RpcError(Status.INTERNAL, "The server did not answer with one message.")
                return response
        except TimeoutError:
            raise RpcError(Status.DEADLINE_EXCEEDED, f"The server did not answer for {timeout:g} seconds.") from None
        finally:
            if call:
                call.cancel()

    async def close(self) -> None:
        """Cancel the calls in flight and close the connection."""
        self._closed = True
        for call in tuple(self._calls):
            call.cancel()
        await self._channel.close()


class GrpcCall:
    """A call (`gateway.triton.transport.Call`).

    grpcio cancels a call whose reader or writer is cancelled, so both run in tasks of their own.
    """

    def __init__(self, call: grpc.aio.StreamStreamCall, idle: float) -> None:
        """`idle` is in seconds."""
        self._call = call
        self._idle = idle
        self._cancelled = False
        self._next = self._start_read()
        """The read of the next message, which starts before the reader asks for it."""

    @property
    def has_message(self) -> bool:
        """True if the next message has arrived already."""
        reading = self._next
        if self._cancelled or not reading.done() or reading.cancelled() or reading.exception():
            return False
        return reading.result() is not grpc.aio.EOF

    @property
    def done(self) -> bool:
        """True once the call has ended."""
        return bool(self._call.done())

    async def send(self, message: bytes) -> None:
        """Send the request. Raises `TimeoutError` when the server has not taken all of it after `idle` seconds."""
        sending = asyncio.ensure_future(self._send(message))
        try:
            await asyncio.wait((sending,), timeout=self._idle)
            if not sending.done():
                raise TimeoutError
            if not sending.cancelled():
                sending.result()
        finally:
            sending.cancel()

    async def _send(self, message: bytes) -> None:
        try:
            await self._call.write(message)
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the call is over, and `read` says how

    async def read(self) -> bytes | None:
        """Return the next message, or None after the last. Raises `RpcError` and `TimeoutError`."""
        if not self._next.done():
            await asyncio.wait((self._next,), timeout=self._idle)
            if not self._next.done():
                raise TimeoutError
        if self._cancelled or self._next.cancelled():
            raise RpcError(Status.CANCELLED, _CLOSED)
        try:
            message = self._next.result()
        except grpc.aio.AioRpcError as error:
            raise RpcError(Status(error.code().value[0]), error.details() or "") from None
        if message is grpc.aio.EOF:
            return None
        self._next = self._start_read()
        return bytes(message)

    def cancel(self) -> None:
        """Cancel the call at the server, unless it is done, and drop what was not read."""
        self._cancelled = self._cancelled or not self.done
        self._call.cancel()
        self._next.cancel()

    def _start_read(self) -> asyncio.Task[Any]:
        reading: asyncio.Task[Any] = asyncio.ensure_future(self._call.read())
        reading.add_done_callback(_mark_seen)
        return reading


def _mark_seen(reading: asyncio.Task[Any]) -> None:
    """Mark an exception as retrieved, so that asyncio does not log the failure of an unread message."""
    if not reading.cancelled():
        reading.exception()
