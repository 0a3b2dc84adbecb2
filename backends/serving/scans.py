"""A limit on the scans of a JPEG, checked before it is decoded.

Decoding a progressive JPEG visits the whole image once for each scan. A file of some kilobytes can have thousands
(https://libjpeg-turbo.org/pmwiki/uploads/About/TwoIssueswiththeJPEGStandard.pdf).
"""

import re

from backends.serving.errors import InvalidValue

_MAX_SCANS = 100
"""Most scans. libjpeg's default for colour images is 10; programs that minimize files use up to about 20."""
_MAX_SEGMENTS = 10_000
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""A marker, but no escaped byte of 255 in the data of a scan (00) and no restart marker (D0 to D7)."""
_MARKERS_WITHOUT_DATA = (0x01, 0xD8)
_END = 0xD9
_SCAN = 0xDA


def check(data: bytes, name: str) -> None:
    """Raise `InvalidValue`, naming the input `name`, for a JPEG with too many scans or segments. Other formats pass."""
    if not data.startswith(b"\xff\xd8"):
        return
    scans, at = 0, 0
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None or data[found.end() - 1] == _END:
            return
        kind, at = data[found.end() - 1], found.end()
        if kind in _MARKERS_WITHOUT_DATA:
            continue
        scans += kind == _SCAN
        if scans > _MAX_SCANS:
            raise InvalidValue(f"The image has more than the {_MAX_SCANS} scans that are accepted.", name)
        at += int.from_bytes(data[at : at + 2])
    raise InvalidValue(f"The image has more than the {_MAX_SEGMENTS} segments that are accepted.", name)
