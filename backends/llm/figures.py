"""Numbers an engine keeps about itself."""

from dataclasses import dataclass


@dataclass(slots=True)
class Figures:
    """Plain integers, each written by one thread and read by any. All but the first two only grow.

    `requests_cancelled` is counted by whoever watches the clients, the others by the engine.
    """

    rows_active: int = 0
    rows_waiting: int = 0
    requests_cancelled: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    steps: int = 0
