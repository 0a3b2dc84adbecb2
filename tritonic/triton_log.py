"""Finds the error lines in Triton's log."""

import re

_LINE = re.compile(r"^(?P<level>[EWIF])\d{4} \d\d:\d\d:\d\d\.\d+\s+\d+ (?P<where>[\w.]+:\d+)\] (?P<text>.*)$")
# Triton logs the first at every start without a GPU. The second follows a line that names the failed model and reason.
_IGNORED = ("CudaDriverHelper has not been initialized", "failed to load all models")
_ERROR_MARKS = (
    "error while loading shared libraries",
    "cannot be started",
    "Segmentation fault",
    "Address already in use",
)


def error_lines(lines: list[str], limit: int = 6) -> list[str]:
    """Return the last `limit` error lines without Triton's prefix; if there are none, the last `limit` lines."""
    found: list[str] = []
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            if any(mark in line for mark in _ERROR_MARKS):
                found.append(line.strip())
        elif match["level"] in "EF" and not any(mark in match["text"] for mark in _IGNORED):
            found.append(match["text"].strip().strip('"').strip())
    return (found or [line.rstrip() for line in lines if line.strip() and line[0] not in "+|"])[-limit:]
