"""Measures how long the event loop's thread computed, waited for a CPU, or was blocked."""

import os
import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds spent between two readings of `CpuClocks`."""

    loop_thread: float
    """CPU time of the event loop's thread."""
    other_threads: float
    """CPU time of all other threads of this process together."""
    run_queue: float
    """Time in which the event loop's thread was runnable, but no CPU was free."""

    def held_seconds(self, late: float) -> float:
        """Return how many of `late` seconds this process itself kept the loop from running.

        These are the CPU time of the loop's thread, and the CPU time of other threads while the loop's thread neither
        ran nor waited for a CPU: it waited for the interpreter lock (GIL) then. Work of threads that have released the
        GIL does not count, nor does the work of other processes. Blocking without computing (on a file, on a lock) does
        not count either; only the lag itself shows it.
        """
        blocked = max(0.0, late - self.loop_thread - self.run_queue)
        return min(late, self.loop_thread + min(self.other_threads, blocked))


class CpuClocks:
    """Clocks of CPU time. The event loop's thread must create and read them. A reading takes 3 microseconds."""

    def __init__(self) -> None:
        try:
            self._schedstat = os.open(
                f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY | os.O_CLOEXEC
            )
        except OSError:  # without schedstat in the kernel, waiting for a CPU counts as waiting for the GIL
            self._schedstat = -1
        self._last_reading = self._now()

    def elapsed(self) -> CpuTime:
        """Return the time spent since the last call."""
        (own, whole, queued), before = self._now(), self._last_reading
        self._last_reading = own, whole, queued
        others = max(0.0, whole - before[1] - (own - before[0]))
        return CpuTime(own - before[0], others, queued - before[2])

    def close(self) -> None:
        """Close the file of the kernel's statistics."""
        if self._schedstat >= 0:
            os.close(self._schedstat)
            self._schedstat = -1

    def _now(self) -> tuple[float, float, float]:
        queued = int(os.pread(self._schedstat, 80, 0).split()[1]) / 1e9 if self._schedstat >= 0 else 0.0
        return time.thread_time(), time.process_time(), queued
