"""A backend's figures among Triton's own metrics."""

import threading
from typing import Protocol


class Metric(Protocol):
    """A gauge or a counter of Triton's."""

    def set(self, value: float) -> None:
        """Set a gauge."""

    def increment(self, value: float) -> None:
        """Add to a counter."""


class MetricsPublisher:
    """A thread that copies what changed to the metrics, ten times a second: the engine never calls the server."""

    def __init__(self, figures: object, gauges: dict[str, Metric], counters: dict[str, Metric]) -> None:
        """The keys are names of attributes of `figures`."""
        self._stats = figures
        self._gauges = gauges
        self._counters = counters
        self._last = dict.fromkeys([*gauges, *counters], 0)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Publish once more, and end the thread."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(0.1):
            self._publish()
        self._publish()

    def _publish(self) -> None:
        for name, last in self._last.items():
            value = getattr(self._stats, name)
            if value == last:
                continue
            if name in self._gauges:
                self._gauges[name].set(value)
            else:
                self._counters[name].increment(value - last)
            self._last[name] = value
