"""Search for a Python interpreter that has the packages of the current process."""

import os
import shutil
import sys
from collections.abc import Iterator


def find_interpreters() -> Iterator[str]:
    """Yield paths of executable Python interpreters, the most likely first.

    In Triton's Python stub `sys.executable` is the stub or empty; the stub uses the packages of the first `python3` on
    PATH. In any other process the running interpreter has the packages, whatever is on PATH.
    """
    running = sys.executable or ""
    seen = set()
    for path in (
        running if os.path.basename(running).startswith("python") else None,  # noqa: PTH119
        shutil.which("python3"),
        f"{sys.prefix}/bin/python3",
    ):
        if path and path not in seen and os.access(path, os.X_OK):
            seen.add(path)
            yield path
