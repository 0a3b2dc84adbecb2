"""Limits of concurrent work and of memory, shared fairly among callers."""

import asyncio
from collections import Counter, OrderedDict, deque

from gateway.errors import RETRY_AFTER_SECONDS, Overloaded


class FairSemaphore:
    """A semaphore with `count` slots that waiting callers get in turn (round-robin).

    A caller may hold as many slots as it leaves free: one caller alone holds two of four; with a second caller that
    holds one, one slot remains for a third. These are dynamic thresholds, as in `gateway.models.admission`. Long work
    of one caller therefore never delays the start of another caller's, until as many callers are active as there are
    slots. A single slot is free for any caller.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def acquire(self, caller: str, *, seconds: float | None = None) -> None:
        """Take a slot; `release` gives it back.

        Raises `TimeoutError` if no slot becomes free within `seconds`; None: there is no timeout.
        """
        if caller not in self._waiting and self._may_acquire(caller):
            self._assign(caller)
            return
        slot = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(slot)
        try:
            async with asyncio.timeout(seconds):
                await slot
        except BaseException:
            if slot.done() and not slot.cancelled():  # the slot was assigned at the same moment
                self.release(caller)
            else:
                self._forget(caller, slot)
            raise

    def release(self, caller: str) -> None:
        """Give a slot back, and assign free slots to waiting callers."""
        self._free += 1
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
        while next_caller := self._next_caller():
            waiting = self._waiting[next_caller]
            slot = waiting.popleft()
            # Round-robin: the caller moves behind the others.
            del self._waiting[next_caller]
            if waiting:
                self._waiting[next_caller] = waiting
            if not slot.done():
                self._assign(next_caller)
                slot.set_result(None)

    def _may_acquire(self, caller: str) -> bool:
        return self._free > self._held[caller]

    def _assign(self, caller: str) -> None:
        self._free -= 1
        self._held[caller] += 1

    def _next_caller(self) -> str | None:
        """Return the next caller: of those that may take a slot, the one with the fewest; then the longest waiting."""
        if not self._free:
            return None
        return min(filter(self._may_acquire, self._waiting), key=self._held.__getitem__, default=None)

    def _forget(self, caller: str, slot: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(caller)
        if waiting and slot in waiting:
            waiting.remove(slot)
            if not waiting:
                del self._waiting[caller]


class MemoryPool:
    """`size` bytes of memory, shared among callers by the same rule, but without waiting."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._held: Counter[str] = Counter()

    def acquire(self, caller: str, count: int) -> bool:
        """Take `count` bytes. Return False if the caller may not have that many more."""
        if self._held[caller] + count > self._free - count:
            return False
        self._free -= count
        self._held[caller] += count
        return True

    def release(self, caller: str, count: int) -> None:
        """Give `count` bytes back."""
        self._free += count
        self._held[caller] -= count
        if self._held[caller] <= 0:
            del self._held[caller]


class MemoryReservation:
    """The bytes of a `MemoryPool` that one request holds."""

    __slots__ = ("_full_message", "_held", "_pool", "caller")

    def __init__(
        self,
        pool: MemoryPool,
        caller: str,
        full_message: str = "The open requests of this caller hold the most memory that is allowed; try again later.",
    ) -> None:
        """`full_message` is the message of the error when the caller may not have more bytes."""
        self.caller = caller
        self._pool = pool
        self._full_message = full_message
        self._held = 0

    def acquire(self, count: int) -> None:
        """Take `count` more bytes. Raises `Overloaded` if the requests of the caller hold too many."""
        if not self._pool.acquire(self.caller, count):
            raise Overloaded(self._full_message, retry_after=RETRY_AFTER_SECONDS)
        self._held += count

    def release(self) -> None:
        """Give all bytes of the request back."""
        self._pool.release(self.caller, self._held)
        self._held = 0
