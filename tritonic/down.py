"""`tritonic down`: stops the `up` of a folder and all its processes."""

import contextlib
import os
import signal
import time
from pathlib import Path

from tritonic import runfile
from tritonic.errors import TritonicError

GRACE_SECONDS = 45.0
"""Seconds that the supervisor has to stop Triton and the gateway, each with a grace of its own."""


class DownError(TritonicError):
    """A process could not be stopped."""


def down(folder: Path, patience: float = GRACE_SECONDS, orphans: float = 15.0) -> bool:
    """Stop the `up` of the folder. Return whether one was running.

    The supervisor may take `patience` seconds, and the reapers `orphans` seconds after its end.
    Raises DownError when a process survives.
    """
    found = runfile.read(folder)
    if found is None:
        return False
    was_alive = found.supervisor.is_alive()
    if was_alive:
        _signal(found.supervisor, signal.SIGTERM)
        _wait(found, patience)
        _signal(found.supervisor, signal.SIGKILL)
    # Without a supervisor, the reapers stop the rest by themselves.
    _wait(found, orphans)
    for pid in _left(found):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _wait(found, 2.0)
    if left := _left(found):
        raise DownError(f"These processes do not end: {', '.join(map(str, left))}.")
    (folder / "up.json").unlink(missing_ok=True)
    return was_alive


def _signal(process: runfile.ProcessIdentity, number: signal.Signals) -> None:
    if process.is_alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _wait(record: runfile.RunRecord, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _left(record) and time.monotonic() < deadline:
        time.sleep(0.05)


def _left(record: runfile.RunRecord) -> list[int]:
    """Return the process ids of this `up` that still run."""
    return [record.supervisor.pid] * record.supervisor.is_alive() + runfile.tagged_pids(record.tag)
