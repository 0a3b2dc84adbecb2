"""What an attack costs: how long it holds the event loop, and how much memory the gateway's processes take."""

import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.attack.serving import ATTACKER, Served
from tests.attack.wire import answer, connect, get, head

FREEZE = 0.1
"""Seconds that an attack may hold the event loop."""
FREEZE_SEEN = 0.5
"""The same as others see it. Generous: what the gateway computes for many small requests at once is in it, too."""
PEAK, KEPT = 256.0, 128.0
"""Megabytes of 2^20 bytes that an attack may take, and of which it may leave so many behind: what was given back to the
allocator, and not to the system."""
HELD = "tritonic_event_loop_held_seconds"
"""The gateway's own histogram of how long its event loop was held, in CPU time."""
_EVERY = 0.02
_LATER = 2.5
"""Seconds within which memory is given back."""


@dataclass(slots=True)
class Cost:
    """Of one attack. Times are in seconds, memory in megabytes."""

    freeze: float = 0.0
    """The longest wait of `/health/live` on a connection that was open before, of which the gateway computed for so
    long: what other programs make it wait does not count."""
    held: int | None = None
    """How often the gateway itself saw its loop held for more than `FREEZE`; None where it does not measure that."""
    peak: float = 0.0
    kept: float = 0.0
    died: list[int] = field(default_factory=list)
    """Processes of the gateway that ended."""


class Watch:
    """Measures inside a `with`; `cost` is complete after it."""

    def __init__(self, served: Served) -> None:
        """Watch the processes of `served`."""
        self._served = served
        self._ending = threading.Event()
        self._probes = [threading.Thread(target=self._probe, args=each, daemon=True) for each in _probes(served)]
        self.cost = Cost()

    def __enter__(self) -> Self:
        self._held = self._observed()
        self._before = {pid: _memory(pid, "VmRSS") for pid in self._served.pids}
        for pid in self._served.pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the most that it had is counted from here on
        for probe in self._probes:
            probe.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending.set()
        for probe in self._probes:
            probe.join()
        running = set(self._served.running())
        self.cost.died = [pid for pid in self._served.pids if pid not in running]
        if self.cost.died:
            return
        self.cost.peak = sum(_memory(pid, "VmHWM") - before for pid, before in self._before.items())
        deadline = time.monotonic() + _LATER
        while (kept := self._more()) > KEPT and time.monotonic() < deadline:
            time.sleep(0.1)
        self.cost.kept = kept
        if self._held is not None and (now := self._observed()) is not None:
            self.cost.held = now - self._held

    def _more(self) -> float:
        return sum(_memory(pid, "VmRSS") - before for pid, before in self._before.items())

    def _observed(self) -> int | None:
        """How often the gateway saw its loop held for longer than is allowed, since it started."""
        text = get(self._served.address, "/metrics", self._served.header(ATTACKER))
        found = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(HELD)]
        if not found:
            return None
        total = sum(float(value) for name, value in found if "_count" in name)
        short = sum(float(value) for name, value in found if "_bucket" in name and f'le="{FREEZE}"' in name)
        return round(total - short)

    def _probe(self, pid: int, connection: socket.socket) -> None:
        request = head("GET", "/health/live", {})
        while not self._ending.wait(_EVERY):
            began, computed = time.perf_counter(), _computed(pid)
            try:
                connection.sendall(request)
                status, _ = answer(connection, "GET")
                waited = min(time.perf_counter() - began, _computed(pid) - computed)
            except OSError:
                return  # the process is gone
            if status == 200:
                self.cost.freeze = max(self.cost.freeze, waited)
            else:
                connection.close()
                connection = connect(self._served.address, "127.0.0.3", timeout=60)


def _computed(pid: int) -> float:
    """Seconds of CPU that a process has had, all its threads together."""
    return time.clock_gettime((~pid << 3) | 2)  # the clock of another process: clock_getcpuclockid(3)


def _memory(pid: int, which: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{which}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _probes(served: Served) -> list[tuple[int, socket.socket]]:
    """For each process a connection that it holds the other end of."""
    found: dict[int, socket.socket] = {}
    for _ in range(200):
        made = connect(served.address, "127.0.0.3", timeout=60)
        pid = _holder(served, made)
        if pid is None or pid in found:
            made.close()
        else:
            found[pid] = made
        if len(found) == len(served.pids):
            return list(found.items())
    raise AssertionError("the kernel gave one worker two hundred connections")


def _holder(served: Served, connection: socket.socket) -> int | None:
    """The process that took a connection, found as soon as it answers on it."""
    if len(served.pids) == 1:
        return served.pids[0]
    connection.sendall(head("GET", "/health/live", {}))
    answer(connection, "GET")
    mine = connection.getsockname()
    for pid in served.pids:
        if any(tuple(each.raddr or ()) == mine for each in psutil.Process(pid).net_connections("tcp")):
            return pid
    return None
