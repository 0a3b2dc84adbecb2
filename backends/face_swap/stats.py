"""Counters of the backend, which `metrics.py` publishes."""

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    """Plain integers, read by any thread, which only grow.

    `requests_cancelled` is written by the cancellation thread, the others under the frontend's lock.
    """

    requests_cancelled: int = 0
    pictures: int = 0
    faces: int = 0
