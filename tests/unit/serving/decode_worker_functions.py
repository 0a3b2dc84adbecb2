"""Functions that the tests of the decode worker call in its process."""

import ctypes
import os
import sys
import time
from typing import Any

from backends.serving.errors import InvalidValue


def repeat(file: bytes, *, times: int) -> tuple[dict[str, Any], bytes]:
    return {"times": times}, file * times


def describe_process(file: bytes) -> tuple[dict[str, Any], bytes]:
    sys.stdout.write("libraries print to standard output")
    sys.stdout.flush()
    return {"process": os.getpid(), "parent": os.getppid(), "environment": list(os.environ)}, b""


def refuse(file: bytes) -> tuple[dict[str, Any], bytes]:
    raise InvalidValue("No.", "image")


def crash(file: bytes) -> tuple[dict[str, Any], bytes]:
    ctypes.string_at(0)
    return {}, b""


def exhaust_memory(file: bytes) -> tuple[dict[str, Any], bytes]:
    return {}, bytes(8 << 30)


def raise_error(file: bytes) -> tuple[dict[str, Any], bytes]:
    raise RuntimeError("unforeseen")


def spin(file: bytes) -> tuple[dict[str, Any], bytes]:
    while True:
        pass


def sleep(file: bytes) -> tuple[dict[str, Any], bytes]:
    time.sleep(600)
    return {}, b""


def return_too_much(file: bytes) -> tuple[dict[str, Any], bytes]:
    return {}, bytes(1001)
