"""Scenarios of the workers' parent, each in a process of its own.

`python -m tests.unit.tritonic.worker_scenarios SCENARIO FOLDER`

The parent handles signals, reaps all children, configures the log and freezes the heap, and a process that has metrics
of a worker keeps them until it ends. A process that runs other tests must not do any of that.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import Histogram
from prometheus_client.metrics import MetricWrapperBase

from gateway.observability.telemetry import Metrics
from gateway.settings import Settings
from gateway.worker_context import WorkerContext, prepare_metrics_files
from tritonic import workers
from tritonic.reaper import PR_SET_CHILD_SUBREAPER

ROOT = Path(__file__).parents[3]


def run_scenario(scenario: str, folder: Path) -> Any:
    """Run a scenario in a process of its own, with `folder` for its workers' files; return its result."""
    command = [sys.executable, "-m", "tests.unit.tritonic.worker_scenarios", scenario, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _run_gateway(run: workers.RunWorker, count: int) -> int:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    return workers.run_workers(Settings(workers=count), listening, run)


def _fail(*arguments: object) -> None:
    raise SystemExit(3)


def failing(folder: Path) -> int:
    """Run three workers that fail at once."""
    return _run_gateway(_fail, 3)


def deaf(folder: Path) -> dict[str, Any]:
    """Run two workers that ignore SIGTERM."""
    workers.GRACE_SECONDS = 0.2
    parent = os.getpid()

    def run(
        settings: Settings,
        context: WorkerContext,
        listening: socket.socket,
        started: Callable[[], None],
        on_heartbeat: workers.OnHeartbeat,
    ) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        started()
        if context.worker_index == 0:
            time.sleep(0.3)
            os.kill(parent, signal.SIGTERM)
        time.sleep(60)

    ended_by = _run_gateway(run, 2)
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return {"ended_by": ended_by, "children": False}
    return {"ended_by": ended_by, "children": True}


def orphaned(folder: Path) -> int:
    """Run a worker that ends before its child. Process 1 of a container inherits such children."""
    parent = os.getpid()
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0

    def run(
        settings: Settings,
        context: WorkerContext,
        listening: socket.socket,
        started: Callable[[], None],
        on_heartbeat: workers.OnHeartbeat,
    ) -> None:
        started()
        if not (folder / "orphan").exists():
            (folder / "orphan").write_text(str(subprocess.Popen(["sleep", "0.2"]).pid))
            os._exit(1)
        while Path(f"/proc/{(folder / 'orphan').read_text()}").exists():
            time.sleep(0.02)
        os.kill(parent, signal.SIGTERM)

    return _run_gateway(run, 1)


def measured(folder: Path) -> dict[str, list[str]]:
    """Return the metrics files of a worker: prepared, present when all are set, kept for its successor."""

    def files(but: bytes | None = None) -> list[str]:
        return sorted(path.name for path in folder.glob("*.db") if but is None or path.read_bytes().strip(but))

    prepare_metrics_files(folder, 1)
    ready = files()
    metrics = Metrics(WorkerContext(folder, 1, 2))
    for each in vars(metrics).values():
        if isinstance(each, MetricWrapperBase):
            one: Any = each.labels(*each._labelnames) if each._labelnames else each
            (one.observe if isinstance(one, Histogram) else one.inc)(1.0)
    present = files()
    prepare_metrics_files(folder, 1)
    return {"ready": ready, "present": present, "kept": files(but=b"\0")}


if __name__ == "__main__":
    _, scenario, folder_argument = sys.argv
    workers._SHARED_MEMORY = Path(folder_argument)
    sys.stdout.write(json.dumps(globals()[scenario](Path(folder_argument))))
