"""Counters of the backend, which `metrics.py` publishes."""

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    """Plain integers, read by any thread. All but `requests_waiting` only grow.

    `requests_cancelled` is written by the cancellation thread, the others under the scheduler's lock.
    """

    requests_waiting: int = 0
    requests_cancelled: int = 0
    runs: int = 0
    tiles: int = 0
