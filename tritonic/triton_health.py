"""Sees from outside that a Triton which runs does not work: it does not answer, or a model's process is gone."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tritonic.models import ModelRepositoryClient, TritonCallError

MAX_SILENT_CHECKS = 15
"""Looks without an answer after which a server hangs. The supervisor looks once a second."""
MAX_STOPPED_CHECKS = 10
"""Looks at which the process of a model is stopped (SIGSTOP), after which it is taken for lost."""


class TritonHealth:
    """Judges one run of a server, from the moment when it is ready.

    Looks are counted, not seconds: where this process stood still too, nothing is held against the server.
    """

    def __init__(self, pid: int, models: ModelRepositoryClient) -> None:
        """`pid` is that of tritonserver."""
        self._pid = pid
        self._models = models
        self._known = self._processes()
        self._lost_models: set[str] = set()
        self._stopped: dict[int, int] = {}
        self._pending_check: Any = None
        self._silent_checks = 0

    def fault(self) -> str | None:
        """Look once; why the server must be started again, as the end of a sentence, or None."""
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
        lost = sorted(self._lost_models & ready)  # what was unloaded on purpose has no process either
        self._lost_models.clear()
        return f"lost the process of its model {', '.join(lost)}" if lost else None

    def _is_silent(self) -> bool:
        """Ask whether the server is ready, and do not wait: the answer is looked at next time."""
        if self._pending_check is not None and self._pending_check.done():
            self._silent_checks = 0 if self._pending_check.exception() is None else self._silent_checks + 1
            self._pending_check = None
        elif self._pending_check is not None:
            self._silent_checks += 1
        if self._pending_check is None:
            self._pending_check = self._models.ready_future()
        return self._silent_checks >= MAX_SILENT_CHECKS

    def _stopped_models(self) -> list[str]:
        """Models whose process has been stopped for so long that it is not somebody's debugger at a breakpoint.

        Triton answers each of their requests with an error, calls them ready, and is aborted by the first request after
        such a process goes on (2.51).
        """
        still = {}
        for pid in self._known:
            with suppress(psutil.Error):
                if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                    still[pid] = self._stopped.get(pid, 0) + 1
        self._stopped = still
        return sorted({self._known[pid] for pid, looks in still.items() if looks >= MAX_STOPPED_CHECKS})

    def _processes(self) -> dict[int, str]:
        """The processes that run models, by pid, with the model's folder."""
        found = {}
        with suppress(psutil.Error):
            for process in psutil.Process(self._pid).children():
                with suppress(psutil.Error):
                    command = process.cmdline()
                    if command and Path(command[0]).name == "triton_python_backend_stub":
                        found[process.pid] = Path(command[1]).parents[1].name
        return found
