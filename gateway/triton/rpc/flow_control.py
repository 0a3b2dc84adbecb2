"""Flow control of a connection: limits the concurrent calls, and the bytes that they send."""

import asyncio
from collections.abc import Callable, Sized

from gateway.triton.rpc import frames
from gateway.triton.rpc.call import Call
from gateway.triton.rpc.frames import FrameType
from gateway.triton.rpc.wait_queue import WaitQueue


class FlowController:
    """Keeps to the limits of the server: concurrent calls, and bytes of each call and of all calls."""

    def __init__(self, write: Callable[[bytes], None], calls: Sized) -> None:
        """`write` sends frames. `calls` are those that have begun and are not done."""
        self.open = True
        """True while new calls may begin."""
        self.paused = False
        """True while the server reads more slowly than the gateway sends."""
        self.window = self.initial_window = frames.DEFAULT_WINDOW_BYTES
        """Bytes that the server takes now of all calls together, and of a new call."""
        self.max_concurrent_streams = frames.MAX_WINDOW_BYTES
        self._write = write
        self._calls = calls
        self._send_queue, self._call_queue = WaitQueue(), WaitQueue()
        """Calls that wait to send more, and calls that wait to begin."""

    @property
    def has_waiters(self) -> bool:
        """True if any call waits."""
        return bool(self._send_queue or self._call_queue)

    @property
    def must_wait(self) -> bool:
        """True if a new call has to wait, also because others wait already."""
        return self._is_full or bool(self._call_queue)

    @property
    def _is_full(self) -> bool:
        return self.paused or self._free_slots <= 0

    @property
    def _free_slots(self) -> int:
        """Number of calls that may begin now, not counting those that were woken and have not begun yet."""
        return self.max_concurrent_streams - len(self._calls) - self._call_queue.num_woken

    async def wait_for_slot(self, idle: float) -> None:
        """Wait until this call may begin or none may any more. Raises `TimeoutError` after `idle` seconds."""
        first = False
        async with asyncio.timeout(idle):
            while self.open and (self._is_full or (self._call_queue and not first)):
                await self._call_queue.wait()
                first = True

    async def wait_for_window(self) -> None:
        """Wait until the server may take more bytes."""
        await self._send_queue.wait()

    def send_frame(self, call: Call, body: memoryview, opening: bytes = b"") -> memoryview:
        """Send one frame of `body`, as long as both windows allow, and return the rest.

        `opening` is sent before it and needs no window. 16 KiB is what every server takes, and short enough that other
        calls do not wait long for their turn.
        """
        size = 0 if self.paused else min(len(body), self.window, call.window, frames.MAX_FRAME_BYTES)
        if size <= 0:
            self._write(opening)
            return body
        self.window -= size
        call.window -= size
        call.request_sent = size == len(body)
        flags = frames.END_STREAM if call.request_sent else 0
        self._write(opening + frames.encode_frame(FrameType.DATA, flags, call.stream, bytes(body[:size])))
        return body[size:]

    async def send_all(self, call: Call, body: memoryview) -> None:
        """Send `body` in turns with other calls. Stop if the call is done before.

        Raises `TimeoutError` when the server takes nothing for the call's `idle` seconds.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(call.idle_seconds) as limit:
            while not call.done and body:
                left = self.send_frame(call, body)
                if len(left) == len(body):
                    await self._send_queue.wait()
                    continue
                body = left
                limit.reschedule(loop.time() + call.idle_seconds)
                await asyncio.sleep(0)

    def wake_waiters(self) -> None:
        """Wake the calls that wait, as the server may take more bytes, or another call."""
        self._send_queue.wake()
        if not self.paused:
            self._call_queue.wake(self._free_slots)

    def stop_accepting(self) -> None:
        """Take no new calls. Calls that have begun go on."""
        self.open = False
        self._send_queue.wake()
        self._call_queue.wake()
