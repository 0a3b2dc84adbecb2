"""Triton's process of a Python model, as an engine expects a process of Python to be."""

import locale
import multiprocessing
import os
import sys
import threading
from pathlib import Path

_SECONDS_TO_ANSWER = 2.0
"""Seconds in which the requests of a dead engine are answered."""


def prepare_process() -> None:
    """Give this process a locale, and let it start processes of its own."""
    # Triton's stub has no locale, and files that are opened without an encoding would be read as ASCII.
    if locale.getencoding().upper() not in ("UTF-8", "UTF8"):
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    # The program of this process is Triton's stub, not Python.
    python = Path(sys.prefix) / "bin" / "python3"
    if "python" not in Path(sys.executable or "").name and python.is_file():
        sys.executable = str(python)
        multiprocessing.set_executable(str(python))


def end_process_soon(seconds: float = _SECONDS_TO_ANSWER) -> None:
    """End this process after `seconds`, in which its requests are answered.

    Triton then has a model without a process, and whoever supervises Triton starts it again.
    """
    timer = threading.Timer(seconds, os._exit, [1])
    timer.daemon = True
    timer.start()
