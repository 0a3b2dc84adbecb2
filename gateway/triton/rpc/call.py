"""One call: one message is sent, and messages are received until a status."""

import asyncio
from collections import deque
from typing import Protocol
from urllib.parse import unquote_to_bytes

from gateway.triton.rpc import frames, status
from gateway.triton.rpc.frames import ProtocolError
from gateway.triton.rpc.status import RpcError, Status

_PREFIX_BYTES = 5
"""Length of the prefix of a message: one byte for compression, four for the length of the message."""
_MAX_MESSAGE_BYTES = 2**28
"""Longest message that a server may announce: its parts are buffered until all have arrived."""
_MAX_EXTENSION_BYTES = 2**20
"""Bytes of a message that the server may send at once beyond the window."""
_NO_ERROR, _CANCEL = 0x0, 0x8


class CallConnection(Protocol):
    """The part of a connection that its calls use."""

    def write(self, data: bytes) -> None:
        """Send HTTP/2 frames."""
        ...

    def call_ended(self, stream: int) -> None:
        """Forget the call of this stream, which is done."""
        ...


class Call:
    """A call that has begun (`gateway.triton.transport.Call`). One task reads it."""

    def __init__(self, connection: CallConnection, stream: int, window: int, idle: float) -> None:
        """`window` is the initial flow-control window of the stream, in bytes; `idle` as in `Channel.call`."""
        self.stream = stream
        self.window = window
        self.idle_seconds = idle
        self.request_sent = False
        """True once the whole request was sent."""
        self.done = False
        """True once the call has ended. Unread messages may remain."""
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._messages: deque[bytes] = deque()
        self._partial_message = bytearray()
        self._unacknowledged_bytes = 0
        """Bytes received since the last WINDOW_UPDATE; negative: bytes that the server may send beyond the window."""
        self._headers: dict[bytes, bytes] = {}
        self._failure: RpcError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._waiting_since = self._loop.time()
        self._idle_timer: asyncio.TimerHandle | None = self._loop.call_later(idle, self._check_idle)

    @property
    def has_message(self) -> bool:
        """True if the next message has arrived already."""
        return bool(self._messages)

    async def read(self) -> bytes | None:
        """Return the next message, or None after the last. Raises `RpcError`, `TimeoutError` after `idle` seconds."""
        while not self._messages:
            if self.done:
                if self._failure:
                    raise self._failure
                return None
            self._waiting_since = self._loop.time()
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self._messages.popleft()
        if not self._messages:
            self._grow_window()
        return message

    def cancel(self) -> None:
        """Cancel the call, unless it is done, and drop what was not read."""
        if not self.done:
            self._abort(Status.CANCELLED, "The call was cancelled.")
        self._messages.clear()
        self._partial_message.clear()

    # Called by the connection.

    def on_data(self, data: bytes, size: int) -> None:
        """Receive a DATA frame. `size` counts against the window and includes padding. Raises `ProtocolError`."""
        self._unacknowledged_bytes += size
        if self._unacknowledged_bytes > frames.DEFAULT_WINDOW_BYTES:
            raise ProtocolError("it sends more than the flow-control window allows")
        part = self._partial_message
        if part:
            part += data
            missing = _PREFIX_BYTES + int.from_bytes(part[1:_PREFIX_BYTES], "big") - len(part)
            data = bytes(part) if missing < 0 else b""
            if missing == 0 and not part[0]:  # a long message is copied once
                del part[:_PREFIX_BYTES]
                self._messages.append(bytes(part))
            if missing <= 0:
                part.clear()
        at, end = 0, len(data)
        while end - at >= _PREFIX_BYTES:
            stop = at + _PREFIX_BYTES + int.from_bytes(data[at + 1 : at + _PREFIX_BYTES], "big")
            if stop > end:
                break
            if data[at]:
                break
            self._messages.append(data[at + _PREFIX_BYTES : stop])
            at = stop
        if at < end:
            part += data[at:] if at else data
        if part and part[0]:
            self._abort(Status.INTERNAL, "The server sent a compressed message, which is not supported.")
        elif part and int.from_bytes(part[1:_PREFIX_BYTES], "big") > _MAX_MESSAGE_BYTES:
            self._abort(Status.INTERNAL, "The server announced a message that is too long.")
        elif self._messages:
            self._wake()
        else:
            self._extend_window()

    def on_headers(self, fields: dict[bytes, bytes], last: bool) -> None:
        """Receive the first headers, the trailers (`last`), or both in one."""
        if last:
            self._headers.update(fields)
            self.on_end_stream()
        elif self._headers:
            self._abort(Status.INTERNAL, "The server sent response headers twice.")
        elif not fields.get(b":status", b"").startswith(b"1"):  # 1xx come before the first
            self._headers = fields
            if wrong := status.from_headers(fields):
                self._abort(wrong[0], wrong[1].decode(errors="replace"))

    def on_end_stream(self) -> None:
        """Receive the end of the stream. The server does not want the rest of the request, if there is any."""
        if not self.request_sent:
            self._connection.write(frames.encode_rst_stream(self.stream, _NO_ERROR))
        code, message = status.from_trailers(self._headers)
        if code is Status.OK and self._partial_message:
            code, message = Status.INTERNAL, b"The last message is truncated."
        if code is Status.OK:
            self._close()
        else:
            self.fail(code, unquote_to_bytes(message).decode(errors="replace"))

    def fail(self, code: Status, message: str) -> None:
        """End the call with an error, unless it is done."""
        if not self.done:
            self._failure = RpcError(code, message)
            self._close()

    def _abort(self, code: Status, message: str) -> None:
        self._connection.write(frames.encode_rst_stream(self.stream, _CANCEL))
        self._partial_message.clear()
        self.fail(code, message)

    def _close(self) -> None:
        self.done = True
        if self._idle_timer:
            self._idle_timer.cancel()
            self._idle_timer = None
        self._connection.call_ended(self.stream)
        self._wake()

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def _grow_window(self) -> None:
        """Let the server send as many bytes as were read. Unread bytes stay within the window."""
        if self._unacknowledged_bytes > frames.DEFAULT_WINDOW_BYTES // 2 and not self.done:
            self._connection.write(frames.encode_window_update(self.stream, self._unacknowledged_bytes))
            self._unacknowledged_bytes = 0

    def _extend_window(self) -> None:
        """Let the server send the rest of a message at once, which has begun and is longer than the window.

        Its end is awaited anyway. An update for each part of it would cost a system call, and the server a wait.
        """
        part = self._partial_message
        if len(part) < _PREFIX_BYTES or self.done:
            return
        rest = _PREFIX_BYTES + int.from_bytes(part[1:_PREFIX_BYTES], "big") - len(part)
        rest = min(rest, _MAX_EXTENSION_BYTES)
        if self._unacknowledged_bytes + rest > frames.DEFAULT_WINDOW_BYTES // 2:
            self._connection.write(frames.encode_window_update(self.stream, self._unacknowledged_bytes + rest))
            self._unacknowledged_bytes = -rest

    def _check_idle(self) -> None:
        """Check `idle`. The call has one timer, because a timer for each message would cost more than the message."""
        waited = self._loop.time() - self._waiting_since if self._waiter and not self._waiter.done() else 0.0
        if self._waiter and waited >= self.idle_seconds:
            self._waiter.set_exception(TimeoutError())
            waited = 0.0
        self._idle_timer = self._loop.call_later(self.idle_seconds - waited, self._check_idle)
