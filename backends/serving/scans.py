"""The scans of a JPEG, counted before it is decoded.

A progressive JPEG is decoded by going through all of it once for each scan, of which a file of some kilobytes can have
thousands (https://libjpeg-turbo.org/pmwiki/uploads/About/TwoIssueswiththeJPEGStandard.pdf).
"""

import re

from backends.serving.errors import InvalidValue

_MOST_SCANS = 100
"""libjpeg's own script for colours has 10, and those of programs that look for the smallest file have up to some 20."""
_MOST_SEGMENTS = 10_000
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Not what is a byte of 255 among a scan's data (0), nor where a reader may begin anew (D0 to D7)."""
_BARE = (0x01, 0xD8)
_END = 0xD9
_SCAN = 0xDA


def check(data: bytes, name: str) -> None:
    """Raise `InvalidValue`, naming the input `name`, for a JPEG of too many scans, or of more segments than any has.

    Other formats pass.
    """
    if not data.startswith(b"\xff\xd8"):
        return
    scans, at = 0, 0
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None or data[found.end() - 1] == _END:
            return
        kind, at = data[found.end() - 1], found.end()
        if kind in _BARE:
            continue
        scans += kind == _SCAN
        if scans > _MOST_SCANS:
            raise InvalidValue(f"The picture has more than the {_MOST_SCANS} scans that are taken.", name)
        at += int.from_bytes(data[at : at + 2])
    raise InvalidValue(f"The picture has more than the {_MOST_SEGMENTS} segments that are taken.", name)
