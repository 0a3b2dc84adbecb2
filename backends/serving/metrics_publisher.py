"""Publication of a backend's counters as Triton metrics."""

import threading
from typing import Protocol


class Metric(Protocol):
    """A Triton gauge or counter."""

    def set(self, value: float) -> None:
        """Set a gauge."""

    def increment(self, value: float) -> None:
        """Add to a counter."""


class MetricsPublisher:
    """A thread that copies changed values to Triton's metrics ten times a second, so that the engine never does."""

    def __init__(self, stats: object, gauges: dict[str, Metric], counters: dict[str, Metric]) -> None:
        """The keys of `gauges` and `counters` are names of attributes of `stats`."""
        self._stats = stats
        self._gauges = gauges
        self._counters = counters
        self._last = dict.fromkeys([*gauges, *counters], 0)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Publish the last values and end the thread."""
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
