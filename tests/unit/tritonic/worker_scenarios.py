"""Scenarios of the workers' parent, each in a process of its own.

`python -m tests.unit.tritonic.worker_scenarios SCENARIO FOLDER`

The parent takes the signals of its process, reaps all children, configures the log and freezes the heap, and metrics of
a worker stay those of a worker until the process ends. None of that may happen in a process that runs other tests.
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


def run_scenario(what: str, folder: Path) -> Any:
    """What `what` returns in a process of its own, whose workers keep their things in `folder`."""
    command = [sys.executable, "-m", "tests.unit.tritonic.worker_scenarios", what, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _keep(run: workers.RunWorker, count: int) -> int:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    bound.listen()
    return workers.run_workers(Settings(workers=count), bound, run)


def _fail(*given: object) -> None:
    raise SystemExit(3)


def failing(folder: Path) -> int:
    """Three workers that cannot be."""
    return _keep(_fail, 3)


def deaf(folder: Path) -> dict[str, Any]:
    """Two workers that ignore SIGTERM."""
    workers.GRACE_SECONDS = 0.2
    parent = os.getpid()

    def run(
        given: Settings,
        context: WorkerContext,
        listening: socket.socket,
        started: Callable[[], None],
        beaten: workers.OnHeartbeat,
    ) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        started()
        if context.worker_index == 0:
            time.sleep(0.3)
            os.kill(parent, signal.SIGTERM)
        time.sleep(60)

    ended_by = _keep(run, 2)
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return {"ended_by": ended_by, "children": False}
    return {"ended_by": ended_by, "children": True}


def orphaned(folder: Path) -> int:
    """A worker that leaves a process behind, as one that is killed does; the first process of a container gets it."""
    parent = os.getpid()
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0

    def run(
        given: Settings,
        context: WorkerContext,
        listening: socket.socket,
        started: Callable[[], None],
        beaten: workers.OnHeartbeat,
    ) -> None:
        started()
        if not (folder / "left").exists():
            (folder / "left").write_text(str(subprocess.Popen(["sleep", "0.2"]).pid))
            os._exit(1)
        while Path(f"/proc/{(folder / 'left').read_text()}").exists():
            time.sleep(0.02)
        os.kill(parent, signal.SIGTERM)

    return _keep(run, 1)


def measured(folder: Path) -> dict[str, list[str]]:
    """The files of a worker: those made ready, those there when everything was measured, and those made anew then."""

    def files(but: bytes | None = None) -> list[str]:
        return sorted(path.name for path in folder.glob("*.db") if but is None or path.read_bytes().strip(but))

    prepare_metrics_files(folder, 1)
    ready = files()
    metrics = Metrics(WorkerContext(folder, 1, 2))
    for each in vars(metrics).values():
        if isinstance(each, MetricWrapperBase):
            one: Any = each.labels(*each._labelnames) if each._labelnames else each
            (one.observe if isinstance(one, Histogram) else one.inc)(1.0)
    there = files()
    prepare_metrics_files(folder, 1)
    return {"ready": ready, "there": there, "kept": files(but=b"\0")}


if __name__ == "__main__":
    _, what, where = sys.argv
    workers._SHARED_MEMORY = Path(where)
    sys.stdout.write(json.dumps(globals()[what](Path(where))))
