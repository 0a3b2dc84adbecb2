"""A queue of tasks that wait for a condition to change."""

import asyncio
import sys
from collections import deque
from contextlib import suppress


class WaitQueue:
    """Wakes tasks in the order in which they began to wait. A woken task checks its condition again."""

    def __init__(self) -> None:
        self.num_woken = 0
        """Tasks that were woken and have not run yet."""
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiters)

    async def wait(self) -> None:
        """Wait until woken."""
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
                self.wake(1)  # the next task takes the turn of this one
            raise
        self.num_woken -= 1

    def wake(self, limit: int = sys.maxsize) -> None:
        """Wake the first `limit` tasks."""
        while self._waiters and limit > 0:
            future = self._waiters.popleft()
            if not future.done():
                future.set_result(None)
                self.num_woken += 1
                limit -= 1
