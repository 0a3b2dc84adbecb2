"""Restart back-off: the delay before a process that ended is started again."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Doubling delays: `first`, twice that, … up to `limit`; `first` again after a run of `healthy_after` seconds."""

    first: float = 1.0
    limit: float = 30.0
    healthy_after: float = 60.0
    _next: float = field(default=0.0, init=False)

    def delay(self, healthy_for: float) -> float:
        """Return the seconds to wait now, after a run that was healthy for `healthy_for` seconds."""
        if self._next == 0.0 or healthy_for >= self.healthy_after:
            self._next = self.first
        delay = self._next
        self._next = min(self.limit, 2 * delay)
        return delay
