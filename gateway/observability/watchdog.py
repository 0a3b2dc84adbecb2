"""Ends a process whose event loop is blocked, whatever blocks it, and dumps the stacks of all threads.

Python runs no signal handler while C code holds the interpreter. So the kernel counts the CPU time of the process
(`ITIMER_PROF`), and the handler of its signal writes the stacks of all threads to standard error and ends the process
without the interpreter. Only CPU time counts: a busy machine, a process that was stopped and continued, and a paused
virtual machine do not look like a hang. Code that blocks without computing has released the interpreter, so the watcher
thread of `gateway.observability.event_loop` notices it.
"""

import ctypes
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable

SIGNAL = signal.SIGPROF
EXIT_STATUS = int(SIGNAL)
"""Exit status of a process that the watchdog ended."""

_LOG_SECONDS = 1.0
"""Most time for the last log lines, in seconds: their reader may hang as well."""


def install() -> None:
    """Let `SIGNAL` write all stacks to standard error and end this process with `EXIT_STATUS`.

    Call it in the main thread. Default actions of signals do not end the first process of a container, so the handler
    to which faulthandler passes the signal on is libc's `_exit`.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal.restype = ctypes.c_void_p
    libc.signal(EXIT_STATUS, ctypes.cast(libc._exit, ctypes.c_void_p))
    faulthandler.register(SIGNAL, file=2, all_threads=True, chain=True)


def rearm(seconds: float) -> None:
    """Permit the process `seconds` of CPU time until the next call; 0: no limit."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def dump_and_exit(write_log: Callable[[], None]) -> None:
    """Call `write_log`, write all stacks to standard error, and end this process with `EXIT_STATUS`."""

    def write() -> None:
        write_log()
        sys.stderr.flush()
        faulthandler.dump_traceback(file=2, all_threads=True)

    thread = threading.Thread(target=write, name="last-words", daemon=True)
    thread.start()
    thread.join(_LOG_SECONDS)
    os._exit(EXIT_STATUS)
