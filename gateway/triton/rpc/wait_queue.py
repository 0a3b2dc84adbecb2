"""Tasks that wait until something may have changed."""

import asyncio
import sys
from collections import deque
from contextlib import suppress


class WaitQueue:
    """They go on in the order in which they came."""

    def __init__(self) -> None:
        self.num_woken = 0
        """Those whose turn it is, and who have not gone on yet."""
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiters)

    async def wait(self) -> None:
        """Until woken."""
        future = asyncio.get_running_loop().create_future()
        self._waiters.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.cancelled():
                with suppress(ValueError):
                    self._waiters.remove(future)
            else:
                self.num_woken -= 1
                self.wake(1)  # the turn that is not taken is somebody else's
            raise
        self.num_woken -= 1

    def wake(self, most: int = sys.maxsize) -> None:
        """The first `most` of them; all, where that is not said."""
        while self._waiters and most > 0:
            future = self._waiters.popleft()
            if not future.done():
                future.set_result(None)
                self.num_woken += 1
                most -= 1
