"""Health check of a running Triton, from outside: it must answer, and its model processes must run."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tritonic.models import ModelRepositoryClient, TritonCallError

MAX_SILENT_CHECKS = 15
"""Checks in a row without an answer that make a fault. The supervisor checks once a second."""
MAX_STOPPED_CHECKS = 10
"""Checks in a row that find the process of a model stopped (SIGSTOP) and make a fault."""


class TritonHealth:
    """Checks one run of a server, which must be ready when this object is created.

    It counts checks, not seconds: if this process was suspended too, that time does not count against the server.
    """

    def __init__(self, pid: int, models: ModelRepositoryClient) -> None:
        """`pid` is the process id of tritonserver."""
        self._pid = pid
        self._models = models
        self._known = self._processes()
        self._lost_models: set[str] = set()
        self._stopped: dict[int, int] = {}
        self._pending_check: Any = None
        self._silent_checks = 0

    def fault(self) -> str | None:
        """Check once. Return why the server must be restarted, as the end of a sentence, or None."""
        now = self._processes()
        self._lost_models |= {model for pid, model in self._known.items() if pid not in now}
        self._lost_models -= set(now.values())
        self._known = now
        if self._is_silent():
            return f"has not answered for {MAX_SILENT_CHECKS} s"
        if stopped := self._stopped_models():
            return f"has a model whose process is stopped, {', '.join(stopped)}"
        if not self._lost_models or self._silent_checks:
            return None
        try:
            ready = {model.name for model in self._models.states(timeout=2) if model.state == "READY"}
        except TritonCallError:
            return None
        lost = sorted(self._lost_models & ready)  # an unloaded model has no process either
        self._lost_models.clear()
        return f"lost the process of its model {', '.join(lost)}" if lost else None

    def _is_silent(self) -> bool:
        """Return whether too many readiness calls had no answer. Sends one, whose result the next check reads."""
        if self._pending_check is not None and self._pending_check.done():
            self._silent_checks = 0 if self._pending_check.exception() is None else self._silent_checks + 1
            self._pending_check = None
        elif self._pending_check is not None:
            self._silent_checks += 1
        if self._pending_check is None:
            self._pending_check = self._models.ready_future()
        return self._silent_checks >= MAX_SILENT_CHECKS

    def _stopped_models(self) -> list[str]:
        """Return the models whose process has been stopped for longer than a debugger's breakpoint would take.

        Triton 2.51 answers each of their requests with an error, still reports them as ready, and aborts on the first
        request after such a process continues.
        """
        still = {}
        for pid in self._known:
            with suppress(psutil.Error):
                if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                    still[pid] = self._stopped.get(pid, 0) + 1
        self._stopped = still
        return sorted({self._known[pid] for pid, looks in still.items() if looks >= MAX_STOPPED_CHECKS})

    def _processes(self) -> dict[int, str]:
        """Return the model processes: pid to the model's folder name."""
        found = {}
        with suppress(psutil.Error):
            for process in psutil.Process(self._pid).children():
                with suppress(psutil.Error):
                    command = process.cmdline()
                    if command and Path(command[0]).name == "triton_python_backend_stub":
                        found[process.pid] = Path(command[1]).parents[1].name
        return found
