"""What all references of one request may cost together."""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

from gateway.errors import RETRY_AFTER_SECONDS, InvalidRequest, Overloaded
from gateway.fair_sharing import MemoryPool, MemoryReservation
from gateway.media.invalid_media import InvalidMedia

_MAX_CONCURRENT_REFERENCES = 4
"""References of one request that are worked on at a time, so that none takes every place that there is."""

_BUSY_MESSAGE = "Too many files are being read now."

Result = TypeVar("Result")


class Budget:
    """Bytes, pixels and places of one request. Its references are worked on inside `with`, and each inside `place`."""

    def __init__(self, caller: str, *, max_bytes: int, max_pixels: int, room: MemoryPool) -> None:
        """`max_bytes` counts what was fetched, or unpacked from base64, before it is read.

        `caller` is who asks, with whom others share the places and the `room` of all.
        """
        self.caller = caller
        self._max_bytes = max_bytes
        self._bytes_left = max_bytes
        self._max_pixels = max_pixels
        self.pixels_left = max_pixels
        self._holding = MemoryReservation(room, caller, _BUSY_MESSAGE)
        self._num_waiting = 0
        self._timed_out_waiting = False
        self.slots = asyncio.Semaphore(_MAX_CONCURRENT_REFERENCES)
        self.decode_lock = asyncio.Lock()
        """Held while a document or a sound is read or waits for it: one of a request at a time, so that a request with
        many stands in line behind one with few, and never holds every process there is."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._holding.release()

    def acquire(self, count: int) -> None:
        """Count bytes as soon as they are there.

        Raises `Unusable` where there are more than all may have together, and `Overloaded` where the references of all
        requests, or those of this caller, hold as many as they may.
        """
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise InvalidMedia(f"with it, the files of this request are larger than the {self._max_bytes} bytes of one")
        self._holding.acquire(count)

    def take_pixels(self, count: int) -> None:
        """Count the pixels of a picture. Raises `Unusable` where there are more than all may have together."""
        self.pixels_left -= count
        if self.pixels_left < 0:
            raise InvalidMedia(f"with it, the pictures of this request have more than {self._max_pixels} pixels")

    @contextmanager
    def waiting_for_slot(self) -> Iterator[None]:
        """Inside, a reference waits for a place that others have."""
        self._num_waiting += 1
        try:
            yield
        finally:
            self._num_waiting -= 1

    async def run_with_timeout(self, seconds: float, references: Awaitable[Result], *, param: str) -> Result:
        """Await what the references come to, for so many seconds.

        Raises `InvalidRequest`, naming `param`, where it takes longer; and `Overloaded` where one of them still waits
        for its place then, which is not the fault of the request.
        """
        # One that waits is noticed before it is cancelled.
        timer = asyncio.get_running_loop().call_later(seconds, self._on_timeout)
        try:
            async with asyncio.timeout(seconds):
                return await references
        except TimeoutError:
            if self._timed_out_waiting:
                raise Overloaded(_BUSY_MESSAGE, retry_after=RETRY_AFTER_SECONDS) from None
            raise InvalidRequest(
                f"What the request refers to could not be fetched and read within {seconds:g} seconds.", param=param
            ) from None
        finally:
            timer.cancel()

    def _on_timeout(self) -> None:
        self._timed_out_waiting = self._num_waiting > 0
