"""Where the Python is that has the packages of the process that a model runs in."""

import os
import shutil
import sys
from collections.abc import Iterator


def find_interpreters() -> Iterator[str]:
    """Yield the paths of Python interpreters, the likeliest first.

    In Triton's stub `sys.executable` is the stub or nothing; the stub takes the packages of the first `python3` on
    PATH. Anywhere else the interpreter that runs has them, whatever is on PATH.
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
