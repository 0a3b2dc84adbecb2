"""Which requests a model takes: a bound on those that are open at once, shared fairly among callers."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gateway.errors import RETRY_AFTER_SECONDS, QueueFull

_SHARE_FACTOR = 4
"""A caller may have so many times as many requests open as there is room left.

These are dynamic thresholds (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches",
1998). Where k callers take all they can of a bound B, each has 4·B/(1 + 4·k), and B/(1 + 4·k) is free for whoever comes
next: one alone has four fifths of it. A caller that has more, since it came when others were not there, gets no more
until it has less: shares become equal as answers end, and nothing under way is cut off.
"""


@dataclass(slots=True)
class _OpenRequests:
    open: int = 0
    by_caller: Counter[str] = field(default_factory=Counter)


class Admission:
    """The open requests of every model, by caller."""

    def __init__(self, bound: int) -> None:
        """`bound` is how many requests one model may have open."""
        self._bound = bound
        self._models: defaultdict[str, _OpenRequests] = defaultdict(_OpenRequests)

    @property
    def max_per_caller(self) -> int:
        """How many requests one caller may have open where there is no other."""
        return -(-self._bound * _SHARE_FACTOR // (_SHARE_FACTOR + 1))

    @contextmanager
    def open(self, name: str, caller: str) -> Iterator[None]:
        """Hold a place at the model `name` inside a `with`. Raises `QueueFull` where there is none for this caller."""
        model = self._models[name]
        room, mine = self._bound - model.open, model.by_caller[caller]
        if room <= 0:
            raise QueueFull(f"{model.open} requests to this model are open already.", retry_after=RETRY_AFTER_SECONDS)
        if mine >= _SHARE_FACTOR * room:
            raise QueueFull(
                f"This caller has {mine} requests to this model open; the room that is left is for others.",
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
