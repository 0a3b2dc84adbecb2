"""Gauges and counters of one engine. `metrics.py` names the Prometheus metrics that publish them."""

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    """Those that every engine has. An engine with more has a subclass.

    One thread writes each of them, and any thread may read it. The first two are gauges, in sequences; the others are
    counters. The cancellation watcher writes `requests_cancelled`, the engine all others.
    """

    rows_active: int = 0
    rows_waiting: int = 0
    requests_cancelled: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    prefix_tokens_reused: int = 0


@dataclass(slots=True)
class BatchingStats(Stats):
    """Those of `batching.engine.BatchingEngine`; the first two are gauges, in bytes."""

    row_bytes: int = 0
    prefix_cache_bytes: int = 0
    steps: int = 0
    preemptions: int = 0
