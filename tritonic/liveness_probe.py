"""A liveness probe that runs again and again in a background thread."""

import threading
import time
from collections.abc import Callable

_MIN_FAILURES = 4
"""Failed probes in a row that make a fault. One alone proves nothing: the whole machine may have been suspended."""


class LivenessProbe:
    """Detects that a process no longer answers: calls `answers(seconds)` in a thread, again and again.

    `answers` returns whether the process answered within `seconds`. Only one call runs at a time.
    """

    def __init__(self, answers: Callable[[float], bool], timeout: float, clock: Callable[[], float] = time.monotonic):
        """`timeout` is the time without an answer after which there is a fault, in seconds; 0 turns the probe off."""
        self._probe_once = answers
        self._timeout = timeout
        self._clock = clock
        self._probe_seconds = max(0.2, timeout / _MIN_FAILURES)
        self._probed_at = -self._probe_seconds
        """Start of the last probe, on `clock`."""
        self._probe: threading.Thread | None = None
        self._silent_since: float | None = None
        """Start of the first failed probe since the last answer."""
        self._num_failures = 0

    def for_new_process(self) -> "LivenessProbe":
        """Return a fresh probe for a new process at the same address: results of old probes do not count for it."""
        return LivenessProbe(self._probe_once, self._timeout, self._clock)

    def silent_seconds(self) -> float | None:
        """Return the seconds without an answer if they exceed the timeout, else None. Start the next probe when due.

        Call it about once a second. It does not wait.
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
        """Seconds between two probes; shorter after a failed one."""
        return self._probe_seconds if self._num_failures else 2 * self._probe_seconds

    def _run_probe(self, began: float) -> None:
        if self._probe_once(self._probe_seconds):
            self._silent_since, self._num_failures = None, 0
            return
        self._silent_since = began if self._silent_since is None else self._silent_since
        self._num_failures += 1
