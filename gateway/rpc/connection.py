"""One HTTP/2 connection, and the calls on it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from gateway.rpc import frames, status
from gateway.rpc.call import Call
from gateway.rpc.frames import Kind, ProtocolError, Setting
from gateway.rpc.headers import Reader
from gateway.rpc.sending import Sending
from gateway.rpc.status import RpcError, Status

LOST = "The connection to the server is lost."
_AWAY = "The server is going away."
_LAST_STREAM = 2**30
"""Long before the numbers of streams are used up, a new connection takes over."""
_ANSWERS_BYTES = 2**20
"""What a server that does not read may leave here of answers to its questions."""
_SILENT_SECONDS = 30.0
"""How long a server that does not answer may say nothing at all before its calls fail."""
_PROTOCOL_ERROR = 0x1


class Connection(asyncio.Protocol):
    """Reads and writes frames. Use `Channel`, which makes a new one when this one cannot be used any more."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, Call] = {}
        self.heard = 0
        """How often something came."""
        self._verdict: asyncio.TimerHandle | None = None
        self._next = 1
        self._rest = b""
        self._headers = Reader()
        self._sending = Sending(self.write, self._calls)
        self._credit = frames.LARGEST_WINDOW
        self._greeted = False
        self._why = LOST
        self._kinds: dict[int, Callable[[int, int, bytes], None]] = {
            Kind.DATA: self._data,
            Kind.HEADERS: self._begin_headers,
            Kind.CONTINUATION: self._go_on_headers,
            Kind.RST_STREAM: self._reset,
            Kind.SETTINGS: self._settings,
            Kind.PUSH_PROMISE: self._push,
            Kind.PING: self._ping,
            Kind.GOAWAY: self._go_away,
            Kind.WINDOW_UPDATE: self._window_update,
        }

    @property
    def usable(self) -> bool:
        """Whether new calls may begin."""
        return self._sending.open

    @property
    def closed(self) -> bool:
        """Whether nothing is left of it."""
        return self._transport is None or self._transport.is_closing()

    async def greeted(self) -> None:
        """Wait for the server's first settings: before them nobody knows how many calls it takes. Raises `RpcError`."""
        while self.usable and not self._greeted:
            await self._sending.turn()
        if not self.usable:
            raise RpcError(Status.UNAVAILABLE, self._why)

    async def call(self, head: bytes, message: bytes, idle: float) -> Call | None:
        """Begin a call: `head` is its block of headers, `message` what it sends.

        None where no call can begin here any more. Raises `TimeoutError` when the server takes nothing for `idle`
        seconds.
        """
        if self._sending.crowded:
            await self._sending.place(idle)
        if not self.usable:
            return None
        body = memoryview(b"\0" + len(message).to_bytes(4, "big") + message)
        stream, self._next = self._next, self._next + 2
        if self._next >= _LAST_STREAM:
            self._retire(LOST)
        call = self._calls[stream] = Call(self, stream, self._sending.first_window, idle)
        # Headers need no window: they leave at once, so that the server knows of whatever is given up later.
        rest = self._sending.some(call, body, frames.frame(Kind.HEADERS, frames.END_HEADERS, stream, head))
        if rest:
            try:
                await self._sending.all(call, rest)
            except BaseException:
                call.cancel()
                raise
        return call

    def write(self, data: bytes) -> None:
        """Send frames, where there still is a connection."""
        if data and self._transport and not self._transport.is_closing():
            self._transport.write(data)

    def forget(self, stream: int) -> None:
        """The call on this stream is over."""
        self._calls.pop(stream, None)
        self._sending.go_on()
        if not self.usable and not self._calls:
            self.close()

    def _retire(self, why: str) -> None:
        """No call may begin any more; those that have begun go on."""
        self._why = why
        self._sending.end()

    def doubt(self, heard: int) -> None:
        """Begin no call here any more where nothing has come since `heard`; fail those that go on if nothing ever does.

        What stands between may take what is sent and pass nothing on, which the system does not notice.
        """
        if self.usable and self.heard == heard:
            self._retire(LOST)
            self._verdict = asyncio.get_running_loop().call_later(_SILENT_SECONDS, self._judge, heard)

    def _judge(self, heard: int) -> None:
        if self.heard == heard:
            self._lose(Status.UNAVAILABLE, LOST)

    def close(self) -> None:
        """Close the connection; calls on it fail."""
        self._lose(Status.CANCELLED, "The connection was closed.")

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what this end takes: a window of its own for each stream, and no limit for all of them together."""
        self._transport = cast(asyncio.Transport, transport)
        said = {Setting.HEADER_TABLE_SIZE: 4096, Setting.ENABLE_PUSH: 0, Setting.INITIAL_WINDOW_SIZE: frames.WINDOW}
        more = frames.window_update(0, frames.LARGEST_WINDOW - frames.WINDOW)
        self._transport.write(frames.PREFACE + frames.settings(said) + more)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the calls."""
        self._lose(Status.UNAVAILABLE, LOST)

    def pause_writing(self) -> None:
        """The server takes less than is sent."""
        self._sending.paused = True

    def resume_writing(self) -> None:
        """It has taken it."""
        self._sending.paused = False
        self._sending.go_on()

    def data_received(self, data: bytes) -> None:
        """Read the frames that are whole."""
        self.heard += 1
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        try:
            while end - at >= frames.HEAD_BYTES:
                size, kind, flags, stream = frames.head(data, at)
                if size > frames.FRAME_BYTES:
                    raise ProtocolError("a frame is longer than it may be")
                stop = at + frames.HEAD_BYTES + size
                if stop > end:
                    break
                if self._headers.open and kind != Kind.CONTINUATION:
                    raise ProtocolError("headers are cut off")
                read = self._kinds.get(kind)
                if read:
                    read(flags, stream, data[at + frames.HEAD_BYTES : stop])
                at = stop
        except ProtocolError as error:
            self.write(frames.frame(Kind.GOAWAY, 0, 0, (0).to_bytes(4, "big") + _PROTOCOL_ERROR.to_bytes(4, "big")))
            self._lose(Status.UNAVAILABLE, f"The server does not speak gRPC: {error}.")
            at = end
        self._rest = data[at:]

    # Frames, by kind.

    def _data(self, flags: int, stream: int, content: bytes) -> None:
        size = len(content)
        self._credit -= size
        if self._credit < frames.LARGEST_WINDOW // 2:
            self.write(frames.window_update(0, frames.LARGEST_WINDOW - self._credit))
            self._credit = frames.LARGEST_WINDOW
        call = self._calls.get(stream) or self._call(stream)
        if call is None:
            return
        call.received(frames.unpadded(content, flags & frames.PADDED) if flags & frames.PADDED else content, size)
        if flags & frames.END_STREAM and not call.over:
            call.ended()

    def _call(self, stream: int) -> Call | None:
        """The call of this stream, where it is not over. Raises `ProtocolError` for one that never was."""
        if stream >= self._next or not stream & 1:
            raise ProtocolError("it answers what nobody asked")
        return self._calls.get(stream)

    def _begin_headers(self, flags: int, stream: int, content: bytes) -> None:
        self._said(stream, flags, self._headers.begin(flags, stream, content))

    def _go_on_headers(self, flags: int, stream: int, content: bytes) -> None:
        self._said(stream, *self._headers.go_on(flags, stream, content))

    def _said(self, stream: int, flags: int, fields: dict[bytes, bytes] | None) -> None:
        call = self._call(stream)
        if call and fields is not None:
            call.headers(fields, bool(flags & frames.END_STREAM))

    def _reset(self, flags: int, stream: int, content: bytes) -> None:
        code = frames.number(content)
        if call := self._call(stream):
            call.fail(status.of_reset(code), f"The server reset the call (HTTP/2 error {code}).")

    def _settings(self, flags: int, stream: int, content: bytes) -> None:
        if flags & frames.ACK:
            return
        for name, value in frames.read_settings(content):
            match name:
                case Setting.INITIAL_WINDOW_SIZE:
                    for call in self._calls.values():
                        call.window += value - self._sending.first_window
                    self._sending.first_window = value
                case Setting.MAX_CONCURRENT_STREAMS:
                    self._sending.most_calls = value
        self._greeted = True
        self._answer(frames.frame(Kind.SETTINGS, frames.ACK, 0))
        self._sending.go_on()

    def _push(self, flags: int, stream: int, content: bytes) -> None:
        raise ProtocolError("it pushes what nobody asked for")

    def _ping(self, flags: int, stream: int, content: bytes) -> None:
        if not flags & frames.ACK:
            self._answer(frames.frame(Kind.PING, frames.ACK, 0, content))

    def _answer(self, data: bytes) -> None:
        if self._sending.paused and self._transport and self._transport.get_write_buffer_size() > _ANSWERS_BYTES:
            raise ProtocolError("it does not read what it asks for")
        self.write(data)

    def _go_away(self, flags: int, stream: int, content: bytes) -> None:
        """The server takes no new calls, and has not begun those beyond the last that it names."""
        last = frames.number(content[:4]) & frames.LARGEST_WINDOW
        self._retire(_AWAY)
        for call in [call for number, call in self._calls.items() if number > last]:
            call.fail(Status.UNAVAILABLE, _AWAY)
        if not self._calls:
            self.close()

    def _window_update(self, flags: int, stream: int, content: bytes) -> None:
        size = frames.number(content) & frames.LARGEST_WINDOW
        if not stream:
            self._sending.window += size
        elif call := self._call(stream):
            call.window += size
        self._sending.go_on()

    def _lose(self, code: Status, message: str) -> None:
        if self._verdict:
            self._verdict.cancel()
        if self.usable:
            self._retire(message)
        if self._transport:
            with suppress(RuntimeError):  # the loop is closed
                # What a server does not read cannot be waited for.
                (self._transport.abort if self._sending.paused else self._transport.close)()
        for call in list(self._calls.values()):
            call.fail(code, message)
