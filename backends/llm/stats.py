"""Numbers an engine keeps about itself."""

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    """Plain integers, each written by one thread and read by any. The first four go up and down, in sequences and in
    bytes; the others only grow.

    `requests_cancelled` is counted by whoever watches the clients, the others by the engine.
    """

    rows_active: int = 0
    rows_waiting: int = 0
    row_bytes: int = 0
    prefix_cache_bytes: int = 0
    requests_cancelled: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    steps: int = 0
    prefix_tokens_reused: int = 0
    preemptions: int = 0
