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
"""Long before the numbers of streams are used up, a new connection takes over."""
_MAX_UNREAD_REPLY_BYTES = 2**20
"""What a server that does not read may leave here of answers to its questions."""
_SILENCE_TIMEOUT_SECONDS = 30.0
"""How long a server that does not answer may say nothing at all before its calls fail."""
_PROTOCOL_ERROR = 0x1


class Connection(asyncio.Protocol):
    """Reads and writes frames. Use `Channel`, which makes a new one when this one cannot be used any more."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, Call] = {}
        self.messages_received = 0
        """How often something came."""
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
        """Whether new calls may begin."""
        return self._flow.open

    @property
    def closed(self) -> bool:
        """Whether nothing is left of it."""
        return self._transport is None or self._transport.is_closing()

    async def wait_for_settings(self) -> None:
        """Wait for the server's first settings: before them nobody knows how many calls it takes. Raises `RpcError`."""
        while self.accepts_calls and not self._settings_received:
            await self._flow.wait_for_window()
        if not self.accepts_calls:
            raise RpcError(Status.UNAVAILABLE, self._drain_reason)

    async def call(self, head: bytes, message: bytes, idle: float) -> Call | None:
        """Begin a call: `head` is its block of headers, `message` what it sends.

        None where no call can begin here any more. Raises `TimeoutError` when the server takes nothing for `idle`
        seconds.
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
        # Headers need no window: they leave at once, so that the server knows of whatever is given up later.
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
        """Send frames, where there still is a connection."""
        if data and self._transport and not self._transport.is_closing():
            self._transport.write(data)

    def call_ended(self, stream: int) -> None:
        """The call on this stream is over."""
        self._calls.pop(stream, None)
        self._flow.go_on()
        if not self.accepts_calls and not self._calls:
            self.close()

    def _drain(self, why: str) -> None:
        """No call may begin any more; those that have begun go on."""
        self._drain_reason = why
        self._flow.stop_accepting()

    def drain_if_silent(self, heard: int) -> None:
        """Begin no call here any more where nothing has come since `heard`; fail those that go on if nothing ever does.

        What stands between may take what is sent and pass nothing on, which the system does not notice.
        """
        if self.accepts_calls and self.messages_received == heard:
            self._drain(CONNECTION_LOST)
            self._silence_timer = asyncio.get_running_loop().call_later(
                _SILENCE_TIMEOUT_SECONDS, self._check_silence, heard
            )

    def _check_silence(self, heard: int) -> None:
        if self.messages_received == heard:
            self._shut_down(Status.UNAVAILABLE, CONNECTION_LOST)

    def close(self) -> None:
        """Close the connection; calls on it fail."""
        self._shut_down(Status.CANCELLED, "The connection was closed.")

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what this end takes: a window of its own for each stream, and no limit for all of them together."""
        self._transport = cast(asyncio.Transport, transport)
        said = {
            Setting.HEADER_TABLE_SIZE: 4096,
            Setting.ENABLE_PUSH: 0,
            Setting.INITIAL_WINDOW_SIZE: frames.DEFAULT_WINDOW_BYTES,
        }
        more = frames.encode_window_update(0, frames.MAX_WINDOW_BYTES - frames.DEFAULT_WINDOW_BYTES)
        self._transport.write(frames.PREFACE + frames.encode_settings(said) + more)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the calls."""
        self._shut_down(Status.UNAVAILABLE, CONNECTION_LOST)

    def pause_writing(self) -> None:
        """The server takes less than is sent."""
        self._flow.paused = True

    def resume_writing(self) -> None:
        """It has taken it."""
        self._flow.paused = False
        self._flow.go_on()

    def data_received(self, data: bytes) -> None:
        """Read the frames that are whole."""
        self.messages_received += 1
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

    # Frames, by kind.

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
        """The call of this stream, where it is not over. Raises `ProtocolError` for one that never was."""
        if stream >= self._next_stream_id or not stream & 1:
            raise ProtocolError("it answers what nobody asked")
        return self._calls.get(stream)

    def _begin_headers(self, flags: int, stream: int, content: bytes) -> None:
        self._deliver_headers(stream, flags, self._headers.begin(flags, stream, content))

    def _continue_headers(self, flags: int, stream: int, content: bytes) -> None:
        self._deliver_headers(stream, *self._headers.go_on(flags, stream, content))

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
        self._flow.go_on()

    def _push(self, flags: int, stream: int, content: bytes) -> None:
        raise ProtocolError("it pushes what nobody asked for")

    def _ping(self, flags: int, stream: int, content: bytes) -> None:
        if not flags & frames.ACK:
            self._reply(frames.encode_frame(FrameType.PING, frames.ACK, 0, content))

    def _reply(self, data: bytes) -> None:
        if self._flow.paused and self._transport and self._transport.get_write_buffer_size() > _MAX_UNREAD_REPLY_BYTES:
            raise ProtocolError("it does not read what it asks for")
        self.write(data)

    def _go_away(self, flags: int, stream: int, content: bytes) -> None:
        """The server takes no new calls, and has not begun those beyond the last that it names."""
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
        self._flow.go_on()

    def _shut_down(self, code: Status, message: str) -> None:
        if self._silence_timer:
            self._silence_timer.cancel()
        if self.accepts_calls:
            self._drain(message)
        if self._transport:
            with suppress(RuntimeError):  # the loop is closed
                # What a server does not read cannot be waited for.
                (self._transport.abort if self._flow.paused else self._transport.close)()
        for call in list(self._calls.values()):
            call.fail(code, message)
