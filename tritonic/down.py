"""`tritonic down`: ends what `up` runs in a folder, and makes sure that it has ended."""

import contextlib
import os
import signal
import time
from pathlib import Path

from tritonic import runfile
from tritonic.errors import TritonicError

GRACE_SECONDS = 45.0
"""Seconds that the supervisor has to stop its parts: each is given its own grace."""


class DownError(TritonicError):
    """A process does not end."""


def down(folder: Path, patience: float = GRACE_SECONDS, orphans: float = 15.0) -> bool:
    """Stop the `up` of the folder. Returns whether there was one.

    `patience` is how long the supervisor may take, `orphans` how long the keepers may without it, in seconds.
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
    # When the supervisor is gone, the keepers end the rest by themselves.
    _wait(found, orphans)
    for pid in _left(found):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _wait(found, 2.0)
    if left := _left(found):
        raise DownError(f"These processes do not end: {', '.join(map(str, left))}.")
    (folder / "up.json").unlink(missing_ok=True)
    return was_alive


def _signal(who: runfile.ProcessIdentity, number: signal.Signals) -> None:
    if who.is_alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(who.pid, number)


def _wait(what: runfile.RunRecord, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _left(what) and time.monotonic() < deadline:
        time.sleep(0.05)


def _left(what: runfile.RunRecord) -> list[int]:
    """Processes of this very `up` that still run."""
    return [what.supervisor.pid] * what.supervisor.is_alive() + runfile.tagged_pids(what.tag)
