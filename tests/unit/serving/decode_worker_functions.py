"""Functions that the tests of the decode worker call in its process."""

import ctypes
import os
import sys
import time
from typing import Any

from backends.serving.errors import InvalidValue


def doubled(file: bytes, *, times: int) -> tuple[dict[str, Any], bytes]:
    return {"times": times}, file * times


def where(file: bytes) -> tuple[dict[str, Any], bytes]:
    sys.stdout.write("libraries say things")
    sys.stdout.flush()
    return {"process": os.getpid(), "parent": os.getppid(), "names": list(os.environ)}, b""


def refuses(file: bytes) -> tuple[dict[str, Any], bytes]:
    raise InvalidValue("No.", "image")


def crashes(file: bytes) -> tuple[dict[str, Any], bytes]:
    ctypes.string_at(0)
    return {}, b""


def eats(file: bytes) -> tuple[dict[str, Any], bytes]:
    return {}, bytes(8 << 30)


def raises(file: bytes) -> tuple[dict[str, Any], bytes]:
    raise RuntimeError("unforeseen")


def spins(file: bytes) -> tuple[dict[str, Any], bytes]:
    while True:
        pass


def sleeps(file: bytes) -> tuple[dict[str, Any], bytes]:
    time.sleep(60)
    return {}, b""


def says_too_much(file: bytes) -> tuple[dict[str, Any], bytes]:
    return {}, bytes(1001)
