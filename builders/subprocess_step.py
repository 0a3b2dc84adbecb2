"""Run an exporter in a process of its own: it prints, may take all memory, and must die with the build."""

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from builders.errors import ExportFailed


def run(script: Path, request: Mapping[str, Any], heard: Callable[[str], None], what: str) -> None:
    """Run `python -I script '<request as JSON>'`, and hand every line it says to `heard`.

    The request gains `parent`, the id of this process. Raises ExportFailed with the end of what was said.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-I", "-u", str(script), json.dumps({**request, "parent": os.getpid()})],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,  # Ctrl-C reaches the build, which then ends this process.
    )
    said: deque[str] = deque(maxlen=12)
    try:
        for line in _lines(process):
            said.append(line)
            heard(line)
        status = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
    if status != 0:
        how = f"ended with signal {-status}" if status < 0 else "failed"
        raise ExportFailed(f"{what} {how}. The end of what it said:\n" + "\n".join(said))


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip():
            yield line.rstrip()[:500]
