"""Ends a process whose event loop does not run any more, whatever holds it, and says where it stood.

Python runs no handler of a signal while C code holds the interpreter. So the kernel counts the processor time of the
process (`ITIMER_PROF`), and its signal writes the stacks of all threads to standard error and ends the process without
the interpreter. Processor time alone is counted: a machine that is busy, a process that was stopped and goes on, and a
virtual machine that was paused do not look like a hang. What stands without computing has released the interpreter;
the thread that watches the loop sees it (`gateway.observability.event_loop`).
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
"""The exit status of a process that was ended so."""

_LOG_SECONDS = 1.0
"""Seconds for the last words: whoever reads them may hang as well."""


def install() -> None:
    """From now on `SIGNAL` writes all stacks to standard error and ends this process with `STATUS`.

    Call it from the main thread. The first process of a container is not ended by the default action of a signal, so
    `_exit` itself is the handler to which faulthandler passes the signal on.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal.restype = ctypes.c_void_p
    libc.signal(EXIT_STATUS, ctypes.cast(libc._exit, ctypes.c_void_p))
    faulthandler.register(SIGNAL, file=2, all_threads=True, chain=True)


def rearm(seconds: float) -> None:
    """Let the process compute for so many seconds until this is called again; 0: for ever."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def dump_and_exit(tell: Callable[[], None]) -> None:
    """Call `tell`, write all stacks to standard error, and end this process with `STATUS`."""

    def say() -> None:
        tell()
        sys.stderr.flush()
        faulthandler.dump_traceback(file=2, all_threads=True)

    telling = threading.Thread(target=say, name="last-words", daemon=True)
    telling.start()
    telling.join(_LOG_SECONDS)
    os._exit(EXIT_STATUS)
