"""What all references of one request may cost together."""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

from gateway.errors import RETRY_AFTER, InvalidRequest, Overloaded
from gateway.media.unusable import Unusable
from gateway.places import Holding, Room

_AT_ONCE = 4
"""References of one request that are worked on at a time, so that none takes every place that there is."""

_FULL = "Too many files are being read now."

Result = TypeVar("Result")


class Allowance:
    """Bytes, pixels and places of one request. Its references are worked on inside `with`, and each inside `place`."""

    def __init__(self, caller: str, *, max_bytes: int, max_pixels: int, room: Room) -> None:
        """`max_bytes` counts what was fetched, or unpacked from base64, before it is read.

        `caller` is who asks, with whom others share the places and the `room` of all.
        """
        self.caller = caller
        self._max_bytes = max_bytes
        self._left = max_bytes
        self._max_pixels = max_pixels
        self.pixels_left = max_pixels
        self._holding = Holding(room, caller, _FULL)
        self._waiting = 0
        self._late = False
        self.place = asyncio.Semaphore(_AT_ONCE)
        self.reading = asyncio.Lock()
        """Held while a document or a sound is read or waits for it: one of a request at a time, so that a request with
        many stands in line behind one with few, and never holds every process there is."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._holding.release()

    def take(self, count: int) -> None:
        """Count bytes as soon as they are there.

        Raises `Unusable` where there are more than all may have together, and `Overloaded` where the references of all
        requests, or those of this caller, hold as many as they may.
        """
        self._left -= count
        if self._left < 0:
            raise Unusable(f"with it, the files of this request are larger than the {self._max_bytes} bytes of one")
        self._holding.take(count)

    def take_pixels(self, count: int) -> None:
        """Count the pixels of a picture. Raises `Unusable` where there are more than all may have together."""
        self.pixels_left -= count
        if self.pixels_left < 0:
            raise Unusable(f"with it, the pictures of this request have more than {self._max_pixels} pixels")

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, a reference waits for a place that others have."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def within(self, seconds: float, references: Awaitable[Result], *, param: str) -> Result:
        """Await what the references come to, for so many seconds.

        Raises `InvalidRequest`, naming `param`, where it takes longer; and `Overloaded` where one of them still waits
        for its place then, which is not the fault of the request.
        """
        # One that waits is noticed before it is cancelled.
        timer = asyncio.get_running_loop().call_later(seconds, self._look_at_the_clock)
        try:
            async with asyncio.timeout(seconds):
                return await references
        except TimeoutError:
            if self._late:
                raise Overloaded(_FULL, retry_after=RETRY_AFTER) from None
            raise InvalidRequest(
                f"What the request refers to could not be fetched and read within {seconds:g} seconds.", param=param
            ) from None
        finally:
            timer.cancel()

    def _look_at_the_clock(self) -> None:
        self._late = self._waiting > 0
