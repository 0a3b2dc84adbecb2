"""Whether something answers, asked again and again in the background."""

import threading
import time
from collections.abc import Callable

_PROBES = 4
"""Probes in a row without an answer: one that was under way while everything was stopped proves nothing."""


class Liveness:
    """Asks with `answers`, which is given the seconds that it may take, never twice at a time."""

    def __init__(self, answers: Callable[[float], bool], timeout: float, clock: Callable[[], float] = time.monotonic):
        """Something is at fault after `timeout` seconds without an answer; 0: never."""
        self._answers = answers
        self._timeout = timeout
        self._clock = clock
        self._each = max(0.2, timeout / _PROBES)
        self._asked = -self._each
        """When it was asked last."""
        self._probe: threading.Thread | None = None
        self._since: float | None = None
        """When the first of the probes began that had no answer."""
        self._failed = 0

    def anew(self) -> "Liveness":
        """Return the same for another process at the same address: what is under way is nothing to it."""
        return Liveness(self._answers, self._timeout, self._clock)

    def fault(self) -> float | None:
        """Return for how many seconds there has been no answer, where that is too long, and ask again where it is time.

        Call it every second or so. It does not wait.
        """
        now = self._clock()
        if not self._timeout:
            return None
        if (self._probe is None or not self._probe.is_alive()) and now - self._asked >= self._pause:
            self._asked = now
            self._probe = threading.Thread(target=self._ask, args=(now,), name="liveness", daemon=True)
            self._probe.start()
        if self._since is None or self._failed < _PROBES or now - self._since < self._timeout:
            return None
        return now - self._since

    @property
    def _pause(self) -> float:
        """Seconds between two probes: fewer where the last one had no answer."""
        return self._each if self._failed else 2 * self._each

    def _ask(self, began: float) -> None:
        if self._answers(self._each):
            self._since, self._failed = None, 0
            return
        self._since = began if self._since is None else self._since
        self._failed += 1
