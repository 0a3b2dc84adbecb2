"""Measures the cost of an attack: how long it blocks the event loop, and the memory of the gateway's processes."""

import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.attack.gateways import ATTACKER, AttackedGateway
from tests.attack.raw_http import connect, get_text, read_response, request_head

MAX_FREEZE_SECONDS = 0.1
"""Seconds that an attack may block the event loop without a pause."""
MAX_OBSERVED_FREEZE_SECONDS = 0.5
"""The same limit as observed by other clients. It is generous, because it includes the work for many small requests."""
MAX_PEAK_MB, MAX_RETAINED_MB = 256.0, 128.0
"""Most memory of an attack in MiB at its peak, and after it. Freed memory is not always returned to the system."""
HOLD_METRIC = "tritonic_event_loop_held_seconds"
"""The gateway's own histogram of the CPU time for which its event loop was blocked."""
_PROBE_INTERVAL_SECONDS = 0.02
_SETTLE_SECONDS = 2.5
"""Seconds within which the gateway must release memory after an attack."""


@dataclass(slots=True)
class Cost:
    """The cost of one attack. Times are in seconds, memory in MiB."""

    freeze_seconds: float = 0.0
    """Longest CPU time of the gateway during a request of `/health/live` on an open connection. Waiting for other
    programs does not count."""
    num_holds: int | None = None
    """Number of times that the event loop was blocked for more than `MAX_FREEZE_SECONDS`. None: not measured."""
    peak_mb: float = 0.0
    retained_mb: float = 0.0
    dead_pids: list[int] = field(default_factory=list)
    """Processes of the gateway that ended."""


class CostMeter:
    """Measures the cost of the block of a `with` statement. `cost` is complete after the block."""

    def __init__(self, served: AttackedGateway) -> None:
        """Measure the processes of `served`."""
        self._served = served
        self._ending = threading.Event()
        self._probes = [threading.Thread(target=self._probe, args=probe, daemon=True) for probe in _open_probes(served)]
        self.cost = Cost()

    def __enter__(self) -> Self:
        self._holds_before = self._count_holds()
        self._before = {pid: _memory(pid, "VmRSS") for pid in self._served.pids}
        for pid in self._served.pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets the peak, VmHWM
        for probe in self._probes:
            probe.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending.set()
        for probe in self._probes:
            probe.join()
        running = set(self._served.live_pids())
        self.cost.dead_pids = [pid for pid in self._served.pids if pid not in running]
        if self.cost.dead_pids:
            return
        self.cost.peak_mb = sum(_memory(pid, "VmHWM") - before for pid, before in self._before.items())
        deadline = time.monotonic() + _SETTLE_SECONDS
        while (retained := self._memory_growth()) > MAX_RETAINED_MB and time.monotonic() < deadline:
            time.sleep(0.1)
        self.cost.retained_mb = retained
        if self._holds_before is not None and (now := self._count_holds()) is not None:
            self.cost.num_holds = now - self._holds_before

    def _memory_growth(self) -> float:
        return sum(_memory(pid, "VmRSS") - before for pid, before in self._before.items())

    def _count_holds(self) -> int | None:
        """Return the number of too long blocks of the event loop since the start of the gateway. None: no metric."""
        text = get_text(self._served.address, "/metrics", self._served.auth_header(ATTACKER))
        samples = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(HOLD_METRIC)]
        if not samples:
            return None
        total = sum(float(value) for name, value in samples if "_count" in name)
        short = sum(
            float(value) for name, value in samples if "_bucket" in name and f'le="{MAX_FREEZE_SECONDS}"' in name
        )
        return round(total - short)

    def _probe(self, pid: int, connection: socket.socket) -> None:
        request = request_head("GET", "/health/live", {})
        while not self._ending.wait(_PROBE_INTERVAL_SECONDS):
            began, cpu_before = time.perf_counter(), _cpu_seconds(pid)
            try:
                connection.sendall(request)
                status, _ = read_response(connection, "GET")
                freeze = min(time.perf_counter() - began, _cpu_seconds(pid) - cpu_before)
            except OSError:
                return  # the process has ended
            if status == 200:
                self.cost.freeze_seconds = max(self.cost.freeze_seconds, freeze)
            else:
                connection.close()
                connection = connect(self._served.address, "127.0.0.3", timeout=60)


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, of all its threads together, in seconds."""
    return time.clock_gettime((~pid << 3) | 2)  # the clock of another process: clock_getcpuclockid(3)


def _memory(pid: int, field: str) -> float:
    """Return a field of `/proc/PID/status` in MiB, 0 if it is missing."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _open_probes(served: AttackedGateway) -> list[tuple[int, socket.socket]]:
    """Return a connection to each worker process. Raises `AssertionError` if a worker gets none of 200 connections."""
    probes: dict[int, socket.socket] = {}
    for _ in range(200):
        connection = connect(served.address, "127.0.0.3", timeout=60)
        pid = _accepting_process(served, connection)
        if pid is None or pid in probes:
            connection.close()
        else:
            probes[pid] = connection
        if len(probes) == len(served.pids):
            return list(probes.items())
    raise AssertionError("a worker accepted none of 200 connections")


def _accepting_process(served: AttackedGateway, connection: socket.socket) -> int | None:
    """Return the process that accepted a connection, None if it is not known yet."""
    if len(served.pids) == 1:
        return served.pids[0]
    connection.sendall(request_head("GET", "/health/live", {}))
    read_response(connection, "GET")
    address = connection.getsockname()
    for pid in served.pids:
        if any(tuple(peer.raddr or ()) == address for peer in psutil.Process(pid).net_connections("tcp")):
            return pid
    return None
