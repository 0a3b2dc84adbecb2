"""Counters of the backend, which `metrics.py` publishes."""

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    """Plain integers, each written by one thread or under one lock, and read by any. All but the first two only grow.

    `runs` counts calls of the denoiser, `steps` the steps of all rows in them, and `frames` the frames of videos that
    the decoder has returned, those of previews included.
    """

    rows_active: int = 0
    rows_waiting: int = 0
    requests_cancelled: int = 0
    runs: int = 0
    steps: int = 0
    images: int = 0
    videos: int = 0
    frames: int = 0
