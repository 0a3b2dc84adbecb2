"""Values of fixtures that all processes of a test run share."""

import fcntl
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

Value = TypeVar("Value")


def make_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Value]) -> Value:
    """Return `make(folder)`, called once in a test run: other pytest-xdist workers wait for it and get a copy.

    `name` identifies the value. The result must be picklable, and nobody may change the files that it refers to.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder = root / "shared" / name
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "result.pickle"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            result.write_bytes(pickle.dumps(make(folder / "files")))
    value: Value = pickle.loads(result.read_bytes())
    return value
