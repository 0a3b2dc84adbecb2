"""The engine's figures among Triton's own metrics."""

import threading
from typing import Protocol

from backends.llm.figures import Figures

GAUGES = {
    "rows_active": ("llm_rows_active", "Sequences that have a row in the batch"),
    "rows_waiting": ("llm_rows_waiting", "Sequences that wait for a row"),
    "row_bytes": ("llm_row_bytes", "Memory of the keys and values of all rows"),
    "prefix_cache_bytes": ("llm_prefix_cache_bytes", "Memory of the keys and values kept of prompts"),
}
COUNTERS = {
    "requests_cancelled": ("llm_requests_cancelled_total", "Requests cancelled by their clients"),
    "tokens_in": ("llm_tokens_in_total", "Prompt tokens computed"),
    "tokens_out": ("llm_tokens_out_total", "Tokens generated, hidden ones included"),
    "steps": ("llm_steps_total", "Steps of the batch"),
    "prefix_tokens_reused": ("llm_prefix_tokens_reused_total", "Prompt tokens copied instead of computed"),
    "preemptions": ("llm_preemptions_total", "Sequences that lost their row to older ones, and began again"),
}


class Metric(Protocol):
    """A gauge or a counter of Triton's."""

    def set(self, value: float) -> None:
        """Set a gauge."""

    def increment(self, value: float) -> None:
        """Add to a counter."""


class Publisher:
    """A thread that copies what changed to the metrics, ten times a second: the engine never calls the server."""

    def __init__(self, figures: Figures, gauges: dict[str, Metric], counters: dict[str, Metric]) -> None:
        """The keys are field names of `Figures`."""
        self._figures = figures
        self._gauges = gauges
        self._counters = counters
        self._last = dict.fromkeys([*gauges, *counters], 0)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="llm-metrics", daemon=True)
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
            value = getattr(self._figures, name)
            if value == last:
                continue
            if name in self._gauges:
                self._gauges[name].set(value)
            else:
                self._counters[name].increment(value - last)
            self._last[name] = value
