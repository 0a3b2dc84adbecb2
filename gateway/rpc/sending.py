"""What goes out on a connection: who may begin a call, and whose turn it is to send more of one."""

import asyncio
from collections.abc import Callable, Sized

from gateway.rpc import frames
from gateway.rpc.call import Call
from gateway.rpc.frames import Kind
from gateway.rpc.turns import Turns


class Sending:
    """Keeps to what the server takes: calls at a time, bytes of each and of all."""

    def __init__(self, write: Callable[[bytes], None], calls: Sized) -> None:
        """`write` sends frames; `calls` are those that have begun and are not over."""
        self.open = True
        """Whether new calls may begin."""
        self.paused = False
        """Whether the server takes less than is sent."""
        self.window = self.first_window = frames.WINDOW
        """Bytes that it takes of all calls together, and of a new one."""
        self.most_calls = frames.LARGEST_WINDOW
        self._write = write
        self._calls = calls
        self._turns, self._line = Turns(), Turns()
        """Who waits until the server takes more of a call, and who until it takes another call."""

    @property
    def waiting(self) -> bool:
        """Whether anybody waits."""
        return bool(self._turns or self._line)

    @property
    def crowded(self) -> bool:
        """Whether a call has to wait until it may begin: who comes while others wait stands behind them."""
        return self._full or bool(self._line)

    @property
    def _full(self) -> bool:
        return self.paused or self._places <= 0

    @property
    def _places(self) -> int:
        """How many more calls may begin, besides those that have been let in and not gone on yet."""
        return self.most_calls - len(self._calls) - self._line.woken

    async def place(self, idle: float) -> None:
        """Wait until another call may begin, or none any more. Raises `TimeoutError` after `idle` seconds."""
        first = False
        async with asyncio.timeout(idle):
            while self.open and (self._full or (self._line and not first)):
                await self._line.wait()
                first = True

    async def turn(self) -> None:
        """Wait until the server may take more."""
        await self._turns.wait()

    def some(self, call: Call, body: memoryview, opening: bytes = b"") -> memoryview:
        """Send one frame, of what both windows allow, and return the rest. `opening` needs no window.

        16 KiB is what every server takes, and short enough that nobody waits long for a turn.
        """
        size = 0 if self.paused else min(len(body), self.window, call.window, frames.FRAME_BYTES)
        if size <= 0:
            self._write(opening)
            return body
        self.window -= size
        call.window -= size
        call.sent = size == len(body)
        flags = frames.END_STREAM if call.sent else 0
        self._write(opening + frames.frame(Kind.DATA, flags, call.stream, bytes(body[:size])))
        return body[size:]

    async def all(self, call: Call, body: memoryview) -> None:
        """Send in turns with the others. Stops where the call is over before.

        Raises `TimeoutError` when the server takes nothing for the call's `idle` seconds.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(call.idle) as limit:
            while not call.over and body:
                left = self.some(call, body)
                if len(left) == len(body):
                    await self._turns.wait()
                    continue
                body = left
                limit.reschedule(loop.time() + call.idle)
                await asyncio.sleep(0)

    def go_on(self) -> None:
        """The server may take more, or another call: let everybody look who waits for that."""
        self._turns.wake()
        if not self.paused:
            self._line.wake(self._places)

    def end(self) -> None:
        """No call may begin any more; those that have begun go on."""
        self.open = False
        self._turns.wake()
        self._line.wake()
