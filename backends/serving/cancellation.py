"""Detection of clients that have disconnected."""

import logging
import threading
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)


class CancellationWatcher:
    """A thread that asks Triton, about every 40 ms, for each active request whether its client has cancelled.

    Each question costs a round trip to the server's process, so the thread that computes never asks.
    """

    def __init__(self, interval: float = 0.04) -> None:
        """`interval` is the time between two rounds, in seconds."""
        self._interval = interval
        self._lock = threading.Lock()
        self._requests: dict[int, tuple[Callable[[], bool], Callable[[], None]]] = {}
        self._closed = threading.Event()
        self._has_requests = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cancellation-watcher", daemon=True)
        self._thread.start()

    def add(self, key: int, is_cancelled: Callable[[], bool], on_cancelled: Callable[[], None]) -> None:
        """Call `on_cancelled` once, from this object's thread, as soon as `is_cancelled()` is true."""
        with self._lock:
            self._requests[key] = is_cancelled, on_cancelled
            self._has_requests.set()

    def remove(self, key: int) -> None:
        """Stop asking for a request; a round that has begun may still ask once."""
        with self._lock:
            self._requests.pop(key, None)
            if not self._requests and not self._closed.is_set():  # the thread must see that it is closed
                self._has_requests.clear()

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            self._closed.set()
            self._has_requests.set()
        self._thread.join()

    def _run(self) -> None:
        while self._has_requests.wait() and not self._closed.is_set():
            start = time.monotonic()
            with self._lock:
                requests = list(self._requests.items())
            for key, (is_cancelled, on_cancelled) in requests:
                try:
                    if key in self._requests and is_cancelled():
                        self.remove(key)
                        on_cancelled()
                except Exception:
                    _log.exception("The cancellation state of a request could not be read from Triton.")
                    self.remove(key)
            # However many requests are active, this thread is busy for at most half of the time.
            busy = time.monotonic() - start
            self._closed.wait(max(self._interval - busy, min(busy, self._interval)))
