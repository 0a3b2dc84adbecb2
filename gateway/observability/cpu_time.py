"""What the event loop's thread did since it was last looked at: it computed, waited for a processor, or stood."""

import os
import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds between two looks."""

    loop_thread: float
    """CPU time of the loop's thread."""
    other_threads: float
    """CPU time of all other threads of this process together."""
    run_queue: float
    """How long the loop's thread could have run, and no processor was free for it."""

    def held_seconds(self, late: float) -> float:
        """Return how many of `late` seconds this process itself kept the loop from running.

        That is what the loop's thread computed, and what other threads computed while it stood still without waiting
        for a processor: it waited for the interpreter's lock then. Work of threads that have released that lock does
        not count, nor does the work of other processes, however busy they make the machine. What blocks the loop
        without computing (a file, a lock) is not in it either; the lateness itself tells of that.
        """
        stood = max(0.0, late - self.loop_thread - self.run_queue)
        return min(late, self.loop_thread + min(self.other_threads, stood))


class CpuClocks:
    """Made by the thread of the loop, and read by it alone. A read takes 3 microseconds."""

    def __init__(self) -> None:
        try:
            self._schedstat = os.open(
                f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY | os.O_CLOEXEC
            )
        except OSError:  # a kernel without it: then parallel work of other threads counts as holding
            self._schedstat = -1
        self._last_reading = self._now()

    def elapsed(self) -> CpuTime:
        """Return what was spent since the last call."""
        (own, whole, queued), before = self._now(), self._last_reading
        self._last_reading = own, whole, queued
        others = max(0.0, whole - before[1] - (own - before[0]))
        return CpuTime(own - before[0], others, queued - before[2])

    def close(self) -> None:
        """Give the file back."""
        if self._schedstat >= 0:
            os.close(self._schedstat)
            self._schedstat = -1

    def _now(self) -> tuple[float, float, float]:
        queued = int(os.pread(self._schedstat, 80, 0).split()[1]) / 1e9 if self._schedstat >= 0 else 0.0
        return time.thread_time(), time.process_time(), queued
