"""Finds in Triton's log the lines that say what went wrong."""

import re
from pathlib import Path

_LINE = re.compile(r"^(?P<level>[EWIF])\d{4} \d\d:\d\d:\d\d\.\d+\s+\d+ (?P<where>[\w.]+:\d+)\] (?P<text>.*)$")
# Said at every start on a machine without a GPU; nothing is wrong.
_HARMLESS = ("CudaDriverHelper has not been initialized",)
_TELLING = ("error while loading shared libraries", "cannot be started", "Segmentation fault", "Address already in use")


def tail(path: Path, max_bytes: int = 200_000) -> list[str]:
    """The last lines of a file; none when it is not there."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - max_bytes))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def telling_lines(lines: list[str], limit: int = 6) -> list[str]:
    """The last `limit` lines that report an error, without Triton's prefix; where there is none, the last of all."""
    found: list[str] = []
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            if any(mark in line for mark in _TELLING):
                found.append(line.strip())
        elif match["level"] in "EF" and not any(mark in match["text"] for mark in _HARMLESS):
            found.append(match["text"].strip().strip('"').strip())
    return (found or [line.rstrip() for line in lines if line.strip() and line[0] not in "+|"])[-limit:]
