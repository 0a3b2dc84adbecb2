"""One HTTP/2 connection, and the calls on it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from gateway.triton.rpc import frames, status
from gateway.triton.rpc.call import Call
from gateway.triton.rpc.flow_control import FlowController
from gateway.triton.rpc.frames import FrameType, ProtocolError, Setting
from gateway.triton.rpc.headers import HeaderDecoder
from gateway.triton.rpc.status import RpcError, Status

CONNECTION_LOST = "The connection to the server is lost."
_GOING_AWAY = "The server is going away."
_MAX_STREAM_ID = 2**30
"""Last stream id of a connection. A new connection takes over long before the ids of HTTP/2, 2^31, are used up."""
_MAX_UNREAD_REPLY_BYTES = 2**20
"""Replies to PING and SETTINGS that may wait for a server that does not read."""
_SILENCE_TIMEOUT_SECONDS = 30.0
"""Seconds without received data, after a unary call timed out, after which the calls of a connection fail."""
_PROTOCOL_ERROR = 0x1


class Connection(asyncio.Protocol):
    """Reads and writes frames. Use `Channel`, which replaces a connection that takes no more calls."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, Call] = {}
        self.arrivals = 0
        """Number of times that data arrived."""
        self._silence_timer: asyncio.TimerHandle | None = None
        self._next_stream_id = 1
        self._receive_buffer = b""
        self._headers = HeaderDecoder()
        self._flow = FlowController(self.write, self._calls)
        self._receive_window = frames.MAX_WINDOW_BYTES
        self._settings_received = False
        self._drain_reason = CONNECTION_LOST
        self._frame_readers: dict[int, Callable[[int, int, bytes], None]] = {
            FrameType.DATA: self._data,
            FrameType.HEADERS: self._begin_headers,
            FrameType.CONTINUATION: self._continue_headers,
            FrameType.RST_STREAM: self._reset,
            FrameType.SETTINGS: self._settings,
            FrameType.PUSH_PROMISE: self._push,
            FrameType.PING: self._ping,
            FrameType.GOAWAY: self._go_away,
            FrameType.WINDOW_UPDATE: self._window_update,
        }

    @property
    def accepts_calls(self) -> bool:
        """True while new calls may begin."""
        return self._flow.open

    @property
    def closed(self) -> bool:
        """True once the connection is closed."""
        return self._transport is None or self._transport.is_closing()

    async def wait_for_settings(self) -> None:
        """Wait for the server's first settings, which say how many calls it takes. Raises `RpcError`."""
        while self.accepts_calls and not self._settings_received:
            await self._flow.wait_for_window()
        if not self.accepts_calls:
            raise RpcError(Status.UNAVAILABLE, self._drain_reason)

    async def call(self, head: bytes, message: bytes, idle: float) -> Call | None:
        """Begin a call with the encoded headers `head`, and send `message`.

        Return None when this connection takes no more calls. Raises `TimeoutError` when the server takes nothing for
        `idle` seconds.
        """
        if self._flow.must_wait:
            await self._flow.wait_for_slot(idle)
        if not self.accepts_calls:
            return None
        body = memoryview(b"\0" + len(message).to_bytes(4, "big") + message)
        stream, self._next_stream_id = self._next_stream_id, self._next_stream_id + 2
        if self._next_stream_id >= _MAX_STREAM_ID:
            self._drain(CONNECTION_LOST)
        call = self._calls[stream] = Call(self, stream, self._flow.initial_window, idle)
        # Headers need no window. They are sent at once, so that a reset refers to a stream that the server knows.
        rest = self._flow.send_frame(
            call, body, frames.encode_frame(FrameType.HEADERS, frames.END_HEADERS, stream, head)
        )
        if rest:
            try:
                await self._flow.send_all(call, rest)
            except BaseException:
                call.cancel()
                raise
        return call

    def write(self, data: bytes) -> None:
        """Send frames, unless the connection is closed."""
        if data and self._transport and not self._transport.is_closing():
            self._transport.write(data)

    def call_ended(self, stream: int) -> None:
        """Forget the call of this stream, which is done, and let others go on."""
        self._calls.pop(stream, None)
        self._flow.wake_waiters()
        if not self.accepts_calls and not self._calls:
            self.close()

    def _drain(self, reason: str) -> None:
        """Take no new calls. Calls that have begun go on."""
        self._drain_reason = reason
        self._flow.stop_accepting()

    def drain_if_silent(self, arrivals_before: int) -> None:
        """Take no new calls if nothing arrived since `arrivals` was `arrivals_before`.

        Calls that have begun fail if nothing arrives for `_SILENCE_TIMEOUT_SECONDS` more. A proxy in between may
        accept data and pass nothing on, which the kernel does not notice.
        """
        if self.accepts_calls and self.arrivals == arrivals_before:
            self._drain(CONNECTION_LOST)
            self._silence_timer = asyncio.get_running_loop().call_later(
                _SILENCE_TIMEOUT_SECONDS, self._check_silence, arrivals_before
            )

    def _check_silence(self, arrivals_before: int) -> None:
        if self.arrivals == arrivals_before:
            self._shut_down(Status.UNAVAILABLE, CONNECTION_LOST)

    def close(self) -> None:
        """Close the connection. Its calls fail with status `CANCELLED`."""
        self._shut_down(Status.CANCELLED, "The connection was closed.")

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send our settings: a receive window for each stream, and no limit for all streams together."""
        self._transport = cast(asyncio.Transport, transport)
        settings = {
            Setting.HEADER_TABLE_SIZE: 4096,
            Setting.ENABLE_PUSH: 0,
            Setting.INITIAL_WINDOW_SIZE: frames.DEFAULT_WINDOW_BYTES,
        }
        window = frames.encode_window_update(0, frames.MAX_WINDOW_BYTES - frames.DEFAULT_WINDOW_BYTES)
        self._transport.write(frames.PREFACE + frames.encode_settings(settings) + window)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the calls with status `UNAVAILABLE`."""
        self._shut_down(Status.UNAVAILABLE, CONNECTION_LOST)

    def pause_writing(self) -> None:
        """Stop sending: the server reads more slowly than we send."""
        self._flow.paused = True

    def resume_writing(self) -> None:
        """Send again."""
        self._flow.paused = False
        self._flow.wake_waiters()

    def data_received(self, data: bytes) -> None:
        """Handle the frames that are complete, and keep the rest."""
        self.arrivals += 1
        if self._receive_buffer:
            data = self._receive_buffer + data
        at, end = 0, len(data)
        try:
            while end - at >= frames.FRAME_HEADER_BYTES:
                size, kind, flags, stream = frames.parse_frame_header(data, at)
                if size > frames.MAX_FRAME_BYTES:
                    raise ProtocolError("a frame is longer than it may be")
                stop = at + frames.FRAME_HEADER_BYTES + size
                if stop > end:
                    break
                if self._headers.open and kind != FrameType.CONTINUATION:
                    raise ProtocolError("headers are cut off")
                read = self._frame_readers.get(kind)
                if read:
                    read(flags, stream, data[at + frames.FRAME_HEADER_BYTES : stop])
                at = stop
        except ProtocolError as error:
            self.write(
                frames.encode_frame(FrameType.GOAWAY, 0, 0, (0).to_bytes(4, "big") + _PROTOCOL_ERROR.to_bytes(4, "big"))
            )
            self._shut_down(Status.UNAVAILABLE, f"The server does not speak gRPC: {error}.")
            at = end
        self._receive_buffer = data[at:]

    # Frames, by type.

    def _data(self, flags: int, stream: int, content: bytes) -> None:
        size = len(content)
        self._receive_window -= size
        if self._receive_window < frames.MAX_WINDOW_BYTES // 2:
            self.write(frames.encode_window_update(0, frames.MAX_WINDOW_BYTES - self._receive_window))
            self._receive_window = frames.MAX_WINDOW_BYTES
        call = self._calls.get(stream) or self._call(stream)
        if call is None:
            return
        call.on_data(frames.strip_padding(content, flags & frames.PADDED) if flags & frames.PADDED else content, size)
        if flags & frames.END_STREAM and not call.done:
            call.on_end_stream()

    def _call(self, stream: int) -> Call | None:
        """Return the call of this stream, None if it is done. Raises `ProtocolError` for a stream that never began."""
        if stream >= self._next_stream_id or not stream & 1:
            raise ProtocolError("it responds to a call that never began")
        return self._calls.get(stream)

    def _begin_headers(self, flags: int, stream: int, content: bytes) -> None:
        self._deliver_headers(stream, flags, self._headers.begin(flags, stream, content))

    def _continue_headers(self, flags: int, stream: int, content: bytes) -> None:
        self._deliver_headers(stream, *self._headers.continue_block(flags, stream, content))

    def _deliver_headers(self, stream: int, flags: int, fields: dict[bytes, bytes] | None) -> None:
        call = self._call(stream)
        if call and fields is not None:
            call.on_headers(fields, bool(flags & frames.END_STREAM))

    def _reset(self, flags: int, stream: int, content: bytes) -> None:
        code = frames.parse_uint32(content)
        if call := self._call(stream):
            call.fail(status.from_rst_stream(code), f"The server reset the call (HTTP/2 error {code}).")

    def _settings(self, flags: int, stream: int, content: bytes) -> None:
        if flags & frames.ACK:
            return
        for name, value in frames.parse_settings(content):
            match name:
                case Setting.INITIAL_WINDOW_SIZE:
                    for call in self._calls.values():
                        call.window += value - self._flow.initial_window
                    self._flow.initial_window = value
                case Setting.MAX_CONCURRENT_STREAMS:
                    self._flow.max_concurrent_streams = value
        self._settings_received = True
        self._reply(frames.encode_frame(FrameType.SETTINGS, frames.ACK, 0))
        self._flow.wake_waiters()

    def _push(self, flags: int, stream: int, content: bytes) -> None:
        raise ProtocolError("it sends PUSH_PROMISE, which is disabled")

    def _ping(self, flags: int, stream: int, content: bytes) -> None:
        if not flags & frames.ACK:
            self._reply(frames.encode_frame(FrameType.PING, frames.ACK, 0, content))

    def _reply(self, data: bytes) -> None:
        if self._flow.paused and self._transport and self._transport.get_write_buffer_size() > _MAX_UNREAD_REPLY_BYTES:
            raise ProtocolError("it does not read the replies to its PING and SETTINGS frames")
        self.write(data)

    def _go_away(self, flags: int, stream: int, content: bytes) -> None:
        """Handle GOAWAY: the server takes no new calls, and ignores calls above the id that it names."""
        last = frames.parse_uint32(content[:4]) & frames.MAX_WINDOW_BYTES
        self._drain(_GOING_AWAY)
        for call in [call for number, call in self._calls.items() if number > last]:
            call.fail(Status.UNAVAILABLE, _GOING_AWAY)
        if not self._calls:
            self.close()

    def _window_update(self, flags: int, stream: int, content: bytes) -> None:
        size = frames.parse_uint32(content) & frames.MAX_WINDOW_BYTES
        if not stream:
            self._flow.window += size
        elif call := self._call(stream):
            call.window += size
        self._flow.wake_waiters()

    def _shut_down(self, code: Status, message: str) -> None:
        if self._silence_timer:
            self._silence_timer.cancel()
        if self.accepts_calls:
            self._drain(message)
        if self._transport:
            with suppress(RuntimeError):  # the event loop is closed
                # A server that does not read would keep the connection open for ever.
                (self._transport.abort if self._flow.paused else self._transport.close)()
        for call in list(self._calls.values()):
            call.fail(code, message)
