"""Admission control: bounds the open requests of each model, and shares them fairly among callers."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gateway.errors import RETRY_AFTER_SECONDS, QueueFull

_SHARE_FACTOR = 4
"""A caller may have at most this many times as many open requests as there are free slots.

These are dynamic thresholds (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches",
1998). Where k callers take all that they can of a bound B, each has 4·B/(1 + 4·k) requests open, and B/(1 + 4·k) places
are free for the next caller: a single caller gets four fifths of the bound. A caller that came first and has more than
its share gets no further request admitted until it has less: shares become equal as answers end, and no running request
is cancelled.
"""


@dataclass(slots=True)
class _OpenRequests:
    open: int = 0
    by_caller: Counter[str] = field(default_factory=Counter)


class Admission:
    """The open requests of every model, by caller."""

    def __init__(self, max_open_requests: int) -> None:
        """`max_open_requests` is the number of requests that each model may have open."""
        self._max_open_requests = max_open_requests
        self._models: defaultdict[str, _OpenRequests] = defaultdict(_OpenRequests)

    @property
    def max_per_caller(self) -> int:
        """The most requests that a single caller may have open at one model."""
        return -(-self._max_open_requests * _SHARE_FACTOR // (_SHARE_FACTOR + 1))

    @contextmanager
    def open(self, name: str, caller: str) -> Iterator[None]:
        """Admit one request to the model `name` for the duration of a `with` block. Raises `QueueFull`."""
        model = self._models[name]
        free, mine = self._max_open_requests - model.open, model.by_caller[caller]
        if free <= 0:
            raise QueueFull(
                f"The model has {model.open} open requests, the most that are allowed; try again later.",
                retry_after=RETRY_AFTER_SECONDS,
            )
        if mine >= _SHARE_FACTOR * free:
            raise QueueFull(
                f"This caller has {mine} open requests to this model. The free slots are reserved for other callers. "
                "Try again later.",
                retry_after=RETRY_AFTER_SECONDS,
            )
        model.open += 1
        model.by_caller[caller] += 1
        try:
            yield
        finally:
            model.open -= 1
            model.by_caller[caller] -= 1
            if not model.by_caller[caller]:
                del model.by_caller[caller]
