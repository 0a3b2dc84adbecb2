"""One call: a message out, and messages in until a status."""

import asyncio
from collections import deque
from typing import Protocol
from urllib.parse import unquote_to_bytes

from gateway.rpc import frames, status
from gateway.rpc.frames import ProtocolError
from gateway.rpc.status import RpcError, Status

_PREFIX = 5
"""Before every message: whether it is compressed, and its length."""
_LARGEST_MESSAGE = 2**28
"""What a server announces is kept until all of it is here."""
_NO_ERROR, _CANCEL = 0x0, 0x8


class Line(Protocol):
    """What a call needs of its connection."""

    def write(self, data: bytes) -> None:
        """Send frames."""
        ...

    def forget(self, stream: int) -> None:
        """The call is over."""
        ...


class Call:
    """A call that has been begun. It is read by one task."""

    def __init__(self, line: Line, stream: int, window: int, idle: float) -> None:
        """`window` is how many bytes the server takes on this stream at first; `idle` as in `Channel.call`."""
        self.stream = stream
        self.window = window
        self.idle = idle
        self.sent = False
        """The server has the whole of the request."""
        self.over = False
        """Nothing more comes, but for what has come already."""
        self._line = line
        self._loop = asyncio.get_running_loop()
        self._messages: deque[bytes] = deque()
        self._part = bytearray()
        self._owed = 0
        """Bytes that came since the server was last let send more."""
        self._fields: dict[bytes, bytes] = {}
        self._failure: RpcError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._since = self._loop.time()
        self._clock: asyncio.TimerHandle | None = self._loop.call_later(idle, self._tick)

    @property
    def waits(self) -> bool:
        """Whether another message is here already."""
        return bool(self._messages)

    async def read(self) -> bytes | None:
        """The next message, or None after the last. Raises `RpcError`, and `TimeoutError` after `idle` seconds."""
        while not self._messages:
            if self.over:
                if self._failure:
                    raise self._failure
                return None
            self._since = self._loop.time()
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self._messages.popleft()
        if not self._messages:
            self._let_more()
        return message

    def cancel(self) -> None:
        """Give the call up, where it is not over."""
        if not self.over:
            self._give_up(Status.CANCELLED, "The call was given up.")
        self._messages.clear()
        self._part.clear()

    # What the connection calls.

    def received(self, data: bytes, size: int) -> None:
        """More of the answer; `size` is what it counts against the window, padding and all. Raises `ProtocolError`."""
        self._owed += size
        if self._owed > frames.WINDOW:
            raise ProtocolError("more comes than may")
        part = self._part
        if part:
            part += data
            data = bytes(part) if len(part) >= _PREFIX + int.from_bytes(part[1:_PREFIX], "big") else b""
            if data:
                part.clear()
        at, end = 0, len(data)
        while end - at >= _PREFIX:
            stop = at + _PREFIX + int.from_bytes(data[at + 1 : at + _PREFIX], "big")
            if stop > end:
                break
            if data[at]:
                break
            self._messages.append(data[at + _PREFIX : stop])
            at = stop
        if at < end:
            part += data[at:] if at else data
        if part and part[0]:
            self._give_up(Status.INTERNAL, "The server compressed a message, which nobody asked for.")
        elif part and int.from_bytes(part[1:_PREFIX], "big") > _LARGEST_MESSAGE:
            self._give_up(Status.INTERNAL, "The server announced a message that is too long.")
        elif self._messages:
            self._wake()
        else:
            self._let_more()  # the rest of a message that is longer than the window

    def headers(self, fields: dict[bytes, bytes], last: bool) -> None:
        """The first headers, the last, or both in one."""
        if last:
            self._fields.update(fields)
            self.ended()
        elif self._fields:
            self._give_up(Status.INTERNAL, "The server answered twice.")
        elif not fields.get(b":status", b"").startswith(b"1"):  # 1xx come before the first
            self._fields = fields
            if wrong := status.of_headers(fields):
                self._give_up(wrong[0], wrong[1].decode(errors="replace"))

    def ended(self) -> None:
        """The server has said everything, and waits for no more of the request."""
        if not self.sent:
            self._line.write(frames.reset(self.stream, _NO_ERROR))
        code, message = status.of_trailers(self._fields)
        if code is Status.OK and self._part:
            code, message = Status.INTERNAL, b"The last message is cut off."
        if code is Status.OK:
            self._close()
        else:
            self.fail(code, unquote_to_bytes(message).decode(errors="replace"))

    def fail(self, code: Status, message: str) -> None:
        """Nothing more comes."""
        if not self.over:
            self._failure = RpcError(code, message)
            self._close()

    def _give_up(self, code: Status, message: str) -> None:
        self._line.write(frames.reset(self.stream, _CANCEL))
        self._part.clear()
        self.fail(code, message)

    def _close(self) -> None:
        self.over = True
        if self._clock:
            self._clock.cancel()
            self._clock = None
        self._line.forget(self.stream)
        self._wake()

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def _let_more(self) -> None:
        """Let the server send as much again as was read: what nobody reads stays within the window."""
        if self._owed > frames.WINDOW // 2 and not self.over:
            self._line.write(frames.window_update(self.stream, self._owed))
            self._owed = 0

    def _tick(self) -> None:
        """One timer for the whole call: setting one for each message would cost more than the message."""
        waited = self._loop.time() - self._since if self._waiter and not self._waiter.done() else 0.0
        if self._waiter and waited >= self.idle:
            self._waiter.set_exception(TimeoutError())
            waited = 0.0
        self._clock = self._loop.call_later(self.idle - waited, self._tick)
