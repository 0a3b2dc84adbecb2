"""What all references of one request may cost together."""

import asyncio

from gateway.media.unusable import Unusable

_AT_ONCE = 4
"""References of one request that are worked on at a time, so that none takes every place that there is."""


class Allowance:
    """Bytes and places of one request, whose references are worked on inside `place` and `take` what they hold."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` counts what was fetched, or unpacked from base64, before it is read."""
        self._max_bytes = max_bytes
        self._left = max_bytes
        self.place = asyncio.Semaphore(_AT_ONCE)
        self.reading = asyncio.Lock()
        """Held while a document or a sound is read or waits for it: one of a request at a time, so that a request with
        many stands in line behind one with few, and never holds every process there is."""

    def take(self, count: int) -> None:
        """Count bytes as soon as they are there. Raises `Unusable` where there are more than all may have together."""
        self._left -= count
        if self._left < 0:
            raise Unusable(f"with it, the files of this request are larger than the {self._max_bytes} bytes of one")
