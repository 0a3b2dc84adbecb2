"""Counters of the backend, which `metrics.py` publishes."""

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    """Plain numbers, each written by one thread or under one lock, and read by any. All but the first two only grow.

    `audio_seconds` counts the sound that windows hold, without the silence between them. `runs` counts steps of the
    decoder, `tokens` the tokens of all rows, those of rejected attempts included.
    """

    rows_active: int = 0
    rows_waiting: int = 0
    requests_cancelled: int = 0
    windows: int = 0
    audio_seconds: float = 0.0
    runs: int = 0
    tokens: int = 0
    retries: int = 0
