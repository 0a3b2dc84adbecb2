"""Places in which the work of callers is done: a bound on what is done at once, shared fairly among callers."""

import asyncio
from collections import Counter, OrderedDict, deque

from gateway.errors import RETRY_AFTER_SECONDS, Overloaded


class FairSemaphore:
    """Up to `count` places, handed to whoever waits, callers in turn.

    A caller may hold as many places as it leaves free: of four one caller alone holds two, and with a second one that
    holds one there is still one for a third. These are dynamic thresholds, as in `gateway.models.admission`. Work
    that takes
    long therefore never keeps another caller's from starting, until as many callers as there are places work at once.
    Where there is one place alone, it is anybody's.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def acquire(self, caller: str, *, seconds: float | None = None) -> None:
        """Take a place, which is to be given back by `release`.

        Raises `TimeoutError` where none becomes free within `seconds`; None: it waits for as long as it takes.
        """
        if caller not in self._waiting and self._may_acquire(caller):
            self._assign(caller)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # it was this one's turn in the same moment
                self.release(caller)
            else:
                self._forget(caller, turn)
            raise

    def release(self, caller: str) -> None:
        """Give a place back."""
        self._free += 1
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
        while next_caller := self._next_caller():
            waiting = self._waiting[next_caller]
            turn = waiting.popleft()
            # Who has had a turn stands behind the others.
            del self._waiting[next_caller]
            if waiting:
                self._waiting[next_caller] = waiting
            if not turn.done():
                self._assign(next_caller)
                turn.set_result(None)

    def _may_acquire(self, caller: str) -> bool:
        return self._free > self._held[caller]

    def _assign(self, caller: str) -> None:
        self._free -= 1
        self._held[caller] += 1

    def _next_caller(self) -> str | None:
        """Whose turn it is: of those that may have a place, one that holds fewest; of these the one waiting longest."""
        if not self._free:
            return None
        return min(filter(self._may_acquire, self._waiting), key=self._held.__getitem__, default=None)

    def _forget(self, caller: str, turn: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(caller)
        if waiting and turn in waiting:
            waiting.remove(turn)
            if not waiting:
                del self._waiting[caller]


class MemoryPool:
    """Bytes that may be held at once, shared among callers in the same way; nobody waits for them."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._held: Counter[str] = Counter()

    def acquire(self, caller: str, count: int) -> bool:
        """Take `count` bytes, if so many are left for this caller."""
        if self._held[caller] + count > self._free - count:
            return False
        self._free -= count
        self._held[caller] += count
        return True

    def release(self, caller: str, count: int) -> None:
        """Give bytes back."""
        self._free += count
        self._held[caller] -= count
        if self._held[caller] <= 0:
            del self._held[caller]


class MemoryReservation:
    """The bytes of a `Room` that one request holds."""

    __slots__ = ("_full", "_held", "_room", "caller")

    def __init__(
        self,
        room: MemoryPool,
        caller: str,
        full: str = "The open requests of this caller hold as many bytes as they may.",
    ) -> None:
        """`full` is what a caller is told for whom no more are left."""
        self.caller = caller
        self._room = room
        self._full = full
        self._held = 0

    def acquire(self, count: int) -> None:
        """Count bytes as soon as they are there. Raises `Overloaded` where the caller's requests hold too many."""
        if not self._room.acquire(self.caller, count):
            raise Overloaded(self._full, retry_after=RETRY_AFTER_SECONDS)
        self._held += count

    def release(self) -> None:
        """Give all of them back."""
        self._room.release(self.caller, self._held)
        self._held = 0
