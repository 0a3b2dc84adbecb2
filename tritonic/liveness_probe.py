"""Whether something answers, asked again and again in the background."""

import threading
import time
from collections.abc import Callable

_MIN_FAILURES = 4
"""Probes in a row without an answer: one that was under way while everything was stopped proves nothing."""


class LivenessProbe:
    """Asks with `answers`, which is given the seconds that it may take, never twice at a time."""

    def __init__(self, answers: Callable[[float], bool], timeout: float, clock: Callable[[], float] = time.monotonic):
        """Something is at fault after `timeout` seconds without an answer; 0: never."""
        self._probe_once = answers
        self._timeout = timeout
        self._clock = clock
        self._probe_seconds = max(0.2, timeout / _MIN_FAILURES)
        self._probed_at = -self._probe_seconds
        """When it was asked last."""
        self._probe: threading.Thread | None = None
        self._silent_since: float | None = None
        """When the first of the probes began that had no answer."""
        self._num_failures = 0

    def for_new_process(self) -> "LivenessProbe":
        """Return the same for another process at the same address: what is under way is nothing to it."""
        return LivenessProbe(self._probe_once, self._timeout, self._clock)

    def silent_seconds(self) -> float | None:
        """Return for how many seconds there has been no answer, where that is too long, and ask again where it is time.

        Call it every second or so. It does not wait.
        """
        now = self._clock()
        if not self._timeout:
            return None
        if (self._probe is None or not self._probe.is_alive()) and now - self._probed_at >= self._interval_seconds:
            self._probed_at = now
            self._probe = threading.Thread(target=self._run_probe, args=(now,), name="liveness", daemon=True)
            self._probe.start()
        if self._silent_since is None or self._num_failures < _MIN_FAILURES or now - self._silent_since < self._timeout:
            return None
        return now - self._silent_since

    @property
    def _interval_seconds(self) -> float:
        """Seconds between two probes: fewer where the last one had no answer."""
        return self._probe_seconds if self._num_failures else 2 * self._probe_seconds

    def _run_probe(self, began: float) -> None:
        if self._probe_once(self._probe_seconds):
            self._silent_since, self._num_failures = None, 0
            return
        self._silent_since = began if self._silent_since is None else self._silent_since
        self._num_failures += 1
