"""A child program under a reaper: it runs in a session of its own, and stopping it leaves no process behind."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from tritonic.errors import TritonicError

_HANG_STATUS = int(signal.SIGPROF)
"""Signal number and exit status of a gateway whose watchdog ended it because the event loop was blocked."""
REAPER = Path(__file__).with_name("reaper.py")


class ChildError(TritonicError):
    """A child could not be started or stopped."""


def describe_exit(status: int) -> str:
    """Return an exit status as a verb phrase: `was killed by signal 9`, `ended with status 1`."""
    if status in (_HANG_STATUS, 128 + _HANG_STATUS):
        return "did not answer and was killed; its log says where it stood"
    if status < 0 or status > 128:  # Below zero: the reaper itself was killed.
        return f"was killed by signal {-status if status < 0 else status - 128}"
    return f"ended with status {status}"


def session_members(session: int) -> list[int]:
    """Return the process ids of a session, without zombies."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, _, _, sid = entry.joinpath("stat").read_bytes().rsplit(b")", 1)[1].split()[:4]
                if int(sid) == session and state not in b"ZX":
                    found.append(int(entry.name))
    return found


class Child:
    """One running program, its descendants, and the reaper (`reaper.py`) that is their parent.

    `pid` is the program's process id. `session` is the reaper's process id and the id of the session of all of them.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        output: IO[bytes] | None = None,
        grace: float = 10.0,
        shm_prefix: str = "",
    ) -> None:
        """Start `argv`.

        `output` gets stdout and stderr (default: this process's own). `grace` is the time between SIGTERM and SIGKILL,
        in seconds. At the end the reaper removes the shared-memory files whose names begin with `shm_prefix`.
        Raises ChildError when the program cannot start.
        """
        self._grace = grace
        self._is_swept = False
        ours, theirs = socket.socketpair()
        with theirs:
            self._reaper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(REAPER), str(theirs.fileno()), str(grace), shm_prefix, *argv],
                env=dict(env) if env is not None else None,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._parent_watch = ours
        self.session = self._reaper.pid
        ours.settimeout(20)
        try:
            answer = ours.recv(32)
        except TimeoutError:
            answer = b""
        if not answer.strip():
            self.stop()
            raise ChildError(f"{argv[0]} could not be started.")
        self.pid = int(answer)

    def poll(self) -> int | None:
        """Return the exit status (128 + signal when killed), or None while the program runs."""
        status = self._reaper.poll()
        if status is not None:
            self._sweep()
        return status

    def wait(self, timeout: float) -> int | None:
        """Wait up to `timeout` seconds for the program to end. Return the exit status, or None if it still runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._reaper.wait(timeout)
        return self.poll()

    def terminate(self) -> None:
        """Send SIGTERM and return at once."""
        if self._reaper.poll() is None:
            self._reaper.terminate()

    def stop(self) -> None:
        """Stop the program and everything it started. Do nothing when it has ended.

        Raises ChildError when a process survives.
        """
        self.terminate()
        if self.wait(self._grace + 3) is None:
            self._reaper.kill()
            self._reaper.wait(5)
            self._sweep()

    def kill(self) -> None:
        """Send SIGKILL to the program alone, as the kernel does when memory runs out. For fault tests."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def processes(self) -> list[int]:
        """Return the process ids of the reaper, the program and its descendants."""
        return session_members(self.session)

    def _sweep(self) -> None:
        """Kill what is left after the reaper's end: nothing, unless the reaper itself was killed. Raises ChildError."""
        if self._is_swept:
            return  # The session's id may belong to other processes by now.
        self._parent_watch.close()
        for _ in range(100):
            left = self.processes()
            if not left:
                self._is_swept = True
                return
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        raise ChildError(f"These processes do not end: {', '.join(map(str, left))}.")
