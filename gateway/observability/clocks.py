"""What the event loop's thread did since it was last looked at: it computed, waited for a processor, or stood."""

import os
import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds between two looks."""

    own: float
    """CPU time of the loop's thread."""
    others: float
    """CPU time of all other threads of this process together."""
    queued: float
    """How long the loop's thread could have run, and no processor was free for it."""

    def held(self, late: float) -> float:
        """Return how many of `late` seconds this process itself kept the loop from running.

        That is what the loop's thread computed, and what other threads computed while it stood still without waiting
        for a processor: it waited for the interpreter's lock then. Work of threads that have released that lock does
        not count, nor does the work of other processes, however busy they make the machine. What blocks the loop
        without computing (a file, a lock) is not in it either; the lateness itself tells of that.
        """
        stood = max(0.0, late - self.own - self.queued)
        return min(late, self.own + min(self.others, stood))


class Clocks:
    """Made by the thread of the loop, and read by it alone. A read takes 3 microseconds."""

    def __init__(self) -> None:
        try:
            self._queued = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # a kernel without it: then parallel work of other threads counts as holding
            self._queued = -1
        self._before = self._now()

    def spent(self) -> Spent:
        """Return what was spent since the last call."""
        (own, whole, queued), before = self._now(), self._before
        self._before = own, whole, queued
        others = max(0.0, whole - before[1] - (own - before[0]))
        return Spent(own - before[0], others, queued - before[2])

    def close(self) -> None:
        """Give the file back."""
        if self._queued >= 0:
            os.close(self._queued)
            self._queued = -1

    def _now(self) -> tuple[float, float, float]:
        queued = int(os.pread(self._queued, 80, 0).split()[1]) / 1e9 if self._queued >= 0 else 0.0
        return time.thread_time(), time.process_time(), queued
