"""End of an engine's own processes when the process of the model has been killed.

They would go on without anybody to serve, and keep the memory of their GPU until Triton itself ends.
"""

import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

_WATCHER = """
import os, signal, sys
watched = []
for pid in sys.argv[1:]:
    try:
        watched.append(os.pidfd_open(int(pid)))
    except ProcessLookupError:
        pass
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.read()
for process in watched:
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""
"""Holds on to processes by descriptor, because a number may belong to another process by then."""


def kill_with_this_process(pids: Collection[int]) -> "subprocess.Popen[str]":
    """Have a small process send SIGKILL to `pids` once this process has ended, however it ends.

    Return that process; the caller keeps it for as long as the processes run. `sys.executable` must be Python.
    """
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCHER, *map(str, pids)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert watcher.stdout is not None
    watcher.stdout.readline()  # it holds on to them from here on
    return watcher


def descendants() -> frozenset[int]:
    """Return the ids of the processes that this process and its children have started."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name of the program, in parentheses, may contain anything.
            parent = int((folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):  # it has ended
            continue
        children.setdefault(parent, []).append(int(folder.name))
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        started = children.get(waiting.pop(), [])
        found += started
        waiting += started
    return frozenset(found)
