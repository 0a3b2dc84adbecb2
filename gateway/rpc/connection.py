"""One HTTP/2 connection, and the calls on it."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from hpack import Decoder, HPACKError

from gateway.rpc import frames, status
from gateway.rpc.call import Call
from gateway.rpc.frames import Kind, ProtocolError, Setting
from gateway.rpc.status import RpcError, Status

LOST = "The connection to the server is lost."
_LAST_STREAM = 2**30
"""Long before the numbers of streams are used up, a new connection takes over."""
_HEADERS_BYTES = 2**20
_PROTOCOL_ERROR = 0x1


class Connection(asyncio.Protocol):
    """Reads and writes frames. Use `Channel`, which makes a new one when this one cannot be used any more."""

    def __init__(self) -> None:
        self.usable = True
        """Whether new calls may begin."""
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, Call] = {}
        self._next = 1
        self._rest = b""
        self._decoder = Decoder(max_header_list_size=_HEADERS_BYTES)
        self._headers: tuple[int, int, bytes] | None = None
        """Stream, flags and block so far of headers that have not ended."""
        self._window = self._first_window = frames.WINDOW
        self._frame_bytes = frames.FRAME_BYTES
        self._most_calls = frames.LARGEST_WINDOW
        self._credit = frames.LARGEST_WINDOW
        self._paused = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._handlers: dict[int, Callable[[int, int, bytes], None]] = {
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
    def closed(self) -> bool:
        """Whether nothing is left of it."""
        return self._transport is None or self._transport.is_closing()

    async def call(self, head: bytes, message: bytes, idle: float) -> Call:
        """Begin a call: `head` is its block of headers, `message` what it sends. Raises `RpcError`."""
        while self.usable and len(self._calls) >= self._most_calls:
            await self._change()
        if not self.usable:
            raise RpcError(Status.UNAVAILABLE, LOST)
        stream, self._next = self._next, self._next + 2
        self.usable = self._next < _LAST_STREAM
        call = self._calls[stream] = Call(self, stream, self._first_window, idle)
        body = b"\0" + len(message).to_bytes(4, "big") + message
        opening = frames.frame(Kind.HEADERS, frames.END_HEADERS, stream, head)
        try:
            await self._send(call, opening, body)
        except BaseException:
            call.cancel()
            raise
        return call

    async def _send(self, call: Call, opening: bytes, body: bytes) -> None:
        """Send as much as both windows allow, again and again. Stops where the call is over before.

        Headers need no window: they leave at once, so that the server knows of whatever is given up later.
        """
        view = memoryview(body)
        while not call.over:
            size = 0 if self._paused else min(len(view), self._window, call.window, self._frame_bytes)
            if size <= 0:
                self.write(opening)
                opening = b""
                await self._change()
                continue
            self._window -= size
            call.window -= size
            last = size == len(view)
            part = frames.frame(Kind.DATA, frames.END_STREAM if last else 0, call.stream, bytes(view[:size]))
            self.write(opening + part)
            if last:
                return
            opening, view = b"", view[size:]
        # The server has answered without the rest, for which it must not wait.
        self.write(frames.reset(call.stream, 0))

    async def _change(self) -> None:
        """Wait until a window, the number of calls or the connection may be another."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def _changed(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)

    def write(self, data: bytes) -> None:
        """Send frames, where there still is a connection."""
        if data and self._transport and not self._transport.is_closing():
            self._transport.write(data)

    def forget(self, stream: int) -> None:
        """The call on this stream is over."""
        self._calls.pop(stream, None)
        if self._waiting:
            self._changed()
        if not self.usable and not self._calls:
            self.close()

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
        self._paused = True

    def resume_writing(self) -> None:
        """It has taken it."""
        self._paused = False
        self._changed()

    def data_received(self, data: bytes) -> None:
        """Read the frames that are whole."""
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
                if self._headers and kind != Kind.CONTINUATION:
                    raise ProtocolError("headers are cut off")
                handle = self._handlers.get(kind)
                if handle:
                    handle(flags, stream, data[at + frames.HEAD_BYTES : stop])
                at = stop
        except (ProtocolError, HPACKError) as error:
            self.write(frames.frame(Kind.GOAWAY, 0, 0, (0).to_bytes(4, "big") + _PROTOCOL_ERROR.to_bytes(4, "big")))
            self._lose(Status.UNAVAILABLE, f"The server does not speak gRPC: {error}.")
        self._rest = data[at:]

    # Frames, by kind.

    def _data(self, flags: int, stream: int, content: bytes) -> None:
        size = len(content)
        self._credit -= size
        if self._credit < frames.LARGEST_WINDOW // 2:
            self.write(frames.window_update(0, frames.LARGEST_WINDOW - self._credit))
            self._credit = frames.LARGEST_WINDOW
        call = self._calls.get(stream)
        if call is None:
            return  # it was given up
        call.received(frames.unpadded(content, flags & frames.PADDED) if flags & frames.PADDED else content, size)
        if flags & frames.END_STREAM and not call.over:
            call.ended()

    def _begin_headers(self, flags: int, stream: int, content: bytes) -> None:
        self._gather_headers(flags, stream, frames.unpadded(content, flags))

    def _go_on_headers(self, flags: int, stream: int, content: bytes) -> None:
        if not self._headers or self._headers[0] != stream:
            raise ProtocolError("headers go on that never began")
        _, begun, block = self._headers
        self._headers = None
        self._gather_headers(begun | flags & frames.END_HEADERS, stream, block + content)

    def _gather_headers(self, flags: int, stream: int, block: bytes) -> None:
        if not flags & frames.END_HEADERS:
            self._headers = (stream, flags, block)
            return
        # Read also where nobody wants them: the table of names is the connection's.
        fields = {_bytes(name): _bytes(value) for name, value in self._decoder.decode(block, raw=True)}
        call = self._calls.get(stream)
        if call:
            call.headers(fields, bool(flags & frames.END_STREAM))

    def _reset(self, flags: int, stream: int, content: bytes) -> None:
        call, code = self._calls.get(stream), frames.number(content)
        if call:
            call.fail(status.of_reset(code), f"The server reset the call (HTTP/2 error {code}).")

    def _settings(self, flags: int, stream: int, content: bytes) -> None:
        if flags & frames.ACK:
            return
        for name, value in frames.read_settings(content):
            match name:
                case Setting.INITIAL_WINDOW_SIZE:
                    for call in self._calls.values():
                        call.window += value - self._first_window
                    self._first_window = value
                case Setting.MAX_FRAME_SIZE:
                    self._frame_bytes = value
                case Setting.MAX_CONCURRENT_STREAMS:
                    self._most_calls = value
        self.write(frames.frame(Kind.SETTINGS, frames.ACK, 0))
        self._changed()

    def _push(self, flags: int, stream: int, content: bytes) -> None:
        raise ProtocolError("it pushes what nobody asked for")

    def _ping(self, flags: int, stream: int, content: bytes) -> None:
        if not flags & frames.ACK:
            self.write(frames.frame(Kind.PING, frames.ACK, 0, content))

    def _go_away(self, flags: int, stream: int, content: bytes) -> None:
        """The server takes no new calls, and has not begun those beyond the last that it names."""
        self.usable = False
        last = int.from_bytes(content[:4], "big") & frames.LARGEST_WINDOW
        for call in [call for number, call in self._calls.items() if number > last]:
            call.fail(Status.UNAVAILABLE, "The server is going away.")
        self._changed()
        if not self._calls:
            self.close()

    def _window_update(self, flags: int, stream: int, content: bytes) -> None:
        size = frames.number(content) & frames.LARGEST_WINDOW
        if not stream:
            self._window += size
        elif call := self._calls.get(stream):
            call.window += size
        if self._waiting:
            self._changed()

    def _lose(self, code: Status, message: str) -> None:
        self.usable = False
        if self._transport:
            with suppress(RuntimeError):  # the loop is closed
                self._transport.close()
        for call in list(self._calls.values()):
            call.fail(code, message)
        self._changed()


def _bytes(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
