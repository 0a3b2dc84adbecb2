"""A child subreaper: it runs one program, and leaves no process behind when the program or its starter ends.

Run by path, with the standard library alone, in a session of its own:

    python -I -S reaper.py PARENT_WATCH GRACE SHM_PREFIX PROGRAM ARGUMENT…

PARENT_WATCH is the number of an inherited socket; the starter holds the other end. The reaper writes the program's
process id to it. When the starter dies, for whatever reason, the socket closes and the reaper stops the program. GRACE
is the time between SIGTERM and SIGKILL, in seconds. At the end the reaper removes the shared-memory files whose names
begin with SHM_PREFIX ("" for none), because a killed server could not do that.

The reaper knows nothing of Triton or of the gateway. It exits with the program's status, or 128 + the signal that ended
the program.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SHARED_MEMORY_FOLDER = "/dev/shm"
STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


def _spawn(argv: list[str]) -> int:
    """Start the program in a process group of its own and return its pid. It dies with this process."""
    reaper = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setpgid(0, 0)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != reaper:  # The reaper died before the line above.
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in (*STOP_SIGNALS, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(argv[0], argv, os.environ)
    except OSError as error:
        os.write(2, f"{argv[0]} cannot be started: {error.strerror}\n".encode())
    finally:  # Whatever happens, this process must not continue as a second reaper.
        os._exit(127)


def _descendants() -> list[int]:
    """Return the pids of all descendants. Orphans are among them: as subreaper, this process is their new parent."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as stat:  # noqa: PTH123
                parents[int(entry)] = int(stat.read().rsplit(b")", 1)[1].split()[1])
    found: list[int] = []
    generation = {os.getpid()}
    while generation:
        generation = {pid for pid, parent in parents.items() if parent in generation}
        found += generation
    return found


def _reap() -> dict[int, int]:
    """Reap all children that have ended. Return their wait statuses by pid."""
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended[pid] = status
    return ended


def _kill_descendants(shm_prefix: str) -> None:
    """Kill all remaining descendants, and remove the program's shared memory."""
    for _ in range(100):
        left = _descendants()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not left:
            break
        time.sleep(0.02)
        _reap()
    if shm_prefix:
        with contextlib.suppress(OSError):
            for name in os.listdir(SHARED_MEMORY_FOLDER):  # noqa: PTH208
                if name.startswith(shm_prefix):
                    os.unlink(f"{SHARED_MEMORY_FOLDER}/{name}")  # noqa: PTH108


def _wait_for_exit(program: int, parent_watch: int, wakeup: int, grace: float) -> int:
    """Wait until the program ends, and return its wait status. Stop it on a stop signal or when the starter is gone."""
    listening = [parent_watch, wakeup]
    deadline: float | None = None
    while True:
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        readable, _, _ = select.select(listening, [], [], wait)
        stop = parent_watch in readable
        if wakeup in readable:
            stop = stop or bool(STOP_SIGNALS & set(os.read(wakeup, 512)))
        status = _reap().get(program)
        if status is not None:
            return status
        if stop and deadline is None:
            listening = [wakeup]
            deadline = time.monotonic() + grace
            os.kill(program, signal.SIGTERM)
        elif deadline is not None and time.monotonic() >= deadline:
            os.kill(program, signal.SIGKILL)
            deadline = time.monotonic() + 1.0


def main(arguments: list[str]) -> int:
    """Run one program until it ends. Return the exit status of this process."""
    parent_watch, grace, shm_prefix, argv = int(arguments[0]), float(arguments[1]), arguments[2], arguments[3:]
    os.set_inheritable(parent_watch, False)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    wakeup, notify = os.pipe()
    os.set_blocking(notify, False)
    signal.set_wakeup_fd(notify, warn_on_full_buffer=False)
    for number in (*STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    program = _spawn(argv)
    with contextlib.suppress(OSError):
        os.write(parent_watch, f"{program}\n".encode())
    status = _wait_for_exit(program, parent_watch, wakeup, grace)
    _kill_descendants(shm_prefix)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
