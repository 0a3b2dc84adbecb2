"""Gauges and counters of an engine on a runtime of another project."""

from dataclasses import dataclass

from backends.llm.stats import Stats


@dataclass(slots=True)
class ExternalStats(Stats):
    """The event loop's thread writes them.

    A runtime that reports its queue does so after each of its steps, so not after the last request was aborted: the two
    gauges of rows are derived from the number of open answers, which is always known.
    """

    max_rows: int = 0
    """Answers that the runtime runs at a time."""

    num_open: int = 0
    """Answers that have not ended."""
    num_queued: int | None = None
    """Answers that wait for the runtime, as it last reported; None if it reports none: then those above `max_rows`."""

    def update_rows(self) -> None:
        """Derive the gauges of rows."""
        queued = max(0, self.num_open - self.max_rows) if self.num_queued is None else self.num_queued
        self.rows_waiting = min(queued, self.num_open)
        self.rows_active = self.num_open - self.rows_waiting


@dataclass(slots=True)
class VllmStats(ExternalStats):
    """Those of vLLM, which reports more."""

    preemptions: int = 0
    kv_cache_usage: float = 0.0
    """The share of the KV cache that is in use, from 0 to 1."""
