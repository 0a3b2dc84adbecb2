"""Counters of the backend, which `metrics.py` publishes."""

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    """Plain integers, read by any thread. All but the first two only grow.

    `requests_cancelled` is written by the cancellation thread, the others under the scheduler's lock.
    """

    requests_speaking: int = 0
    requests_waiting: int = 0
    requests_cancelled: int = 0
    pieces: int = 0
    tokens: int = 0
    frames: int = 0
