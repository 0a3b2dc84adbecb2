"""Numbers that the backend keeps about itself."""

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    """Plain integers, written under one lock and read by any thread. All but the first only grow."""

    texts_waiting: int = 0
    requests_cancelled: int = 0
    runs: int = 0
    texts: int = 0
    tokens: int = 0
    padding: int = 0
