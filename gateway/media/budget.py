"""Limits on all references of one request together."""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

from gateway.errors import RETRY_AFTER_SECONDS, InvalidRequest, Overloaded
from gateway.fair_sharing import MemoryPool, MemoryReservation
from gateway.media.invalid_media import InvalidMedia

_MAX_CONCURRENT_REFERENCES = 4
"""References of one request that are loaded at a time, so that one request does not take every slot."""

_BUSY_MESSAGE = "Too many files are being fetched or decoded now; try again later."

Result = TypeVar("Result")


class Budget:
    """The bytes, pixels and slots that one request may use. A context manager that releases the memory at its end.

    Each reference of the request is loaded inside the `with` block and holds one of `slots`.
    """

    def __init__(self, caller: str, *, max_bytes: int, max_pixels: int, memory: MemoryPool) -> None:
        """`max_bytes` limits the bytes that are fetched or decoded from base64, before they are parsed.

        `max_pixels` limits the pixels of all images together. `memory` is the memory for the files of all requests;
        `caller` and other callers share it, and the decoder slots, fairly.
        """
        self.caller = caller
        self._max_bytes = max_bytes
        self._bytes_left = max_bytes
        self._max_pixels = max_pixels
        self.pixels_left = max_pixels
        self._reservation = MemoryReservation(memory, caller, _BUSY_MESSAGE)
        self._num_waiting = 0
        self._timed_out_waiting = False
        self.slots = asyncio.Semaphore(_MAX_CONCURRENT_REFERENCES)
        self.decode_lock = asyncio.Lock()
        """Held while a document or audio file waits for a decoder or is decoded. A request decodes one of these at a
        time, so that a request with many files does not take all decoder processes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._reservation.release()

    def acquire(self, count: int) -> None:
        """Count bytes as soon as they are in memory.

        Raises `InvalidMedia` when the files of the request are too large together, and `Overloaded` when the files of
        all requests, or of this caller, take as much memory as they may.
        """
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise InvalidMedia(f"with it, the files of this request exceed the limit of {self._max_bytes} bytes")
        self._reservation.acquire(count)

    def take_pixels(self, count: int) -> None:
        """Count the pixels of an image. Raises `InvalidMedia` when the images of the request have too many together."""
        self.pixels_left -= count
        if self.pixels_left < 0:
            raise InvalidMedia(f"with it, the images of this request exceed the limit of {self._max_pixels} pixels")

    @contextmanager
    def waiting_for_slot(self) -> Iterator[None]:
        """Mark a reference as waiting for a slot that others hold, inside the `with`."""
        self._num_waiting += 1
        try:
            yield
        finally:
            self._num_waiting -= 1

    async def run_with_timeout(self, seconds: float, references: Awaitable[Result], *, param: str) -> Result:
        """Await the loading of `references` for at most `seconds`.

        Raises `Overloaded` after that if one of them still waits for a slot, which is not the fault of the request, and
        `InvalidRequest` with `param` otherwise.
        """
        # Waiting references are counted by a timer, before the timeout cancels them.
        timer = asyncio.get_running_loop().call_later(seconds, self._on_timeout)
        try:
            async with asyncio.timeout(seconds):
                return await references
        except TimeoutError:
            if self._timed_out_waiting:
                raise Overloaded(_BUSY_MESSAGE, retry_after=RETRY_AFTER_SECONDS) from None
            raise InvalidRequest(
                f"The files of the request could not be fetched and decoded within {seconds:g} seconds.", param=param
            ) from None
        finally:
            timer.cancel()

    def _on_timeout(self) -> None:
        self._timed_out_waiting = self._num_waiting > 0
