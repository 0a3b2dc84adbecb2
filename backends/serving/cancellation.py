"""Finding out which clients went away."""

import logging
import threading
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)


class CancellationWatcher:
    """One thread asks, about every 40 ms, for each live request whether its client has gone.

    Asking costs a round trip to the server's process, so it is never done by the thread that computes.
    """

    def __init__(self, interval: float = 0.04) -> None:
        """`interval` is in seconds."""
        self._interval = interval
        self._lock = threading.Lock()
        self._requests: dict[int, tuple[Callable[[], bool], Callable[[], None]]] = {}
        self._closed = threading.Event()
        self._has_requests = threading.Event()
        self._thread = threading.Thread(target=self._run, name="llm-watch", daemon=True)
        self._thread.start()

    def add(self, key: int, gone: Callable[[], bool], leave: Callable[[], None]) -> None:
        """Call `leave` once, as soon as `gone()` is true."""
        with self._lock:
            self._requests[key] = gone, leave
            self._has_requests.set()

    def remove(self, key: int) -> None:
        """Stop asking."""
        with self._lock:
            self._requests.pop(key, None)
            if not self._requests:
                self._has_requests.clear()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._has_requests.set()
        self._thread.join()

    def _run(self) -> None:
        while self._has_requests.wait() and not self._closed.is_set():
            begun = time.monotonic()
            with self._lock:
                live = list(self._requests.items())
            for key, (gone, leave) in live:
                try:
                    if key in self._requests and gone():
                        self.remove(key)
                        leave()
                except Exception:
                    _log.exception("A request could not be asked whether it is cancelled.")
                    self.remove(key)
            # Never busy for more than half of the time, however many there are.
            spent = time.monotonic() - begun
            self._closed.wait(max(self._interval - spent, min(spent, self._interval)))
