"""Counters of the backend, which `metrics.py` publishes."""

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    """Plain integers, read by any thread. All but `texts_waiting` only grow.

    `requests_cancelled` is written by the cancellation thread, the others under the scheduler's lock. `runs` counts
    batches, `padding` the tokens of padding in them.
    """

    texts_waiting: int = 0
    requests_cancelled: int = 0
    runs: int = 0
    texts: int = 0
    tokens: int = 0
    padding: int = 0
