"""Run a heavy step of a build in a process of its own.

Exporters print, can use all memory, do not release it, and must end with the build. The started process runs
`builders.subprocess_main`.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from builders.errors import ExportFailed

SCRIPT = Path(__file__).with_name("subprocess_main.py")
ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds the package `builders`, wherever it was installed."""

MAX_LINES = 12
"""Lines of a failed process's output that the error quotes."""
MAX_LINE_CHARACTERS = 500


def run(
    function: str,
    arguments: Mapping[str, Any],
    description: str,
    on_line: Callable[[str], object] = lambda line: None,
    *,
    isolated: bool = False,
    python: str = sys.executable,
) -> Any:
    """Call `function(**arguments)` in a new process, and return what it returns.

    `function` is written `module:name`. Arguments and result travel as JSON, so a Path is given as a string. `on_line`
    is called with each line that the process prints. `isolated` loads the function's file alone: no package of ours is
    imported before it, so that another `python` can run it. Raises ExportFailed with the end of the output; it calls
    the step by its `description`.
    """
    module, _, name = function.partition(":")
    with tempfile.TemporaryDirectory(prefix="tritonic-step-") as folder:
        result = Path(folder) / "result.json"
        request = {
            "parent": os.getpid(),
            "root": None if isolated else str(ROOT),
            "module": _file_of(module) if isolated else module,
            "function": name,
            "arguments": dict(arguments),
            "result": str(result),
        }
        status, output = run_command([python, "-I", "-u", str(SCRIPT), json.dumps(request)], on_line)
        if status == 0 and result.is_file():
            return json.loads(result.read_bytes())
    how = f"ended with signal {-status}" if status < 0 else "failed"
    raise ExportFailed(f"{description} {how}. The end of what it said:\n{output}")


def run_command(command: list[str], on_line: Callable[[str], object] = lambda line: None) -> tuple[int, str]:
    """Run a command; return its exit status (minus the number of a signal that ended it) and the end of its output.

    `on_line` is called with each line of stdout and stderr. If the build is interrupted, the process is killed. Raises
    OSError if the command cannot be started.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,  # Ctrl-C reaches the build alone, which then kills this process.
    )
    last: deque[str] = deque(maxlen=MAX_LINES)
    try:
        for line in _lines(process):
            last.append(line)
            on_line(line)
        status = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
    return status, "\n".join(last)


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip():
            yield line.rstrip()[:MAX_LINE_CHARACTERS]


def _file_of(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    return spec.origin
