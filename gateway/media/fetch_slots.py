"""Slots for fetching URLs, which images, documents and recordings share."""

from gateway.errors import RETRY_AFTER_SECONDS, Overloaded
from gateway.fair_sharing import FairSemaphore


class FetchSlots:
    """At most so many URLs are fetched at a time. The slots are shared fairly among callers."""

    def __init__(self, num_slots: int, seconds: float) -> None:
        """A caller waits for a slot for at most `seconds`."""
        self._slots = FairSemaphore(num_slots)
        self._seconds = seconds

    async def acquire(self, caller: str) -> None:
        """Wait for a slot, which `release` frees. Raises `Overloaded` if none becomes free in time."""
        try:
            await self._slots.acquire(caller, seconds=self._seconds)
        except TimeoutError:
            raise Overloaded(
                "Too many URLs are being fetched now; try again later.", retry_after=RETRY_AFTER_SECONDS
            ) from None

    def release(self, caller: str) -> None:
        """Free a slot of `caller`."""
        self._slots.release(caller)
