"""The scans of a JPEG, counted before it is decoded.

A progressive JPEG is decoded by going through all of it once for each scan, of which a file of some kilobytes can have
thousands (https://libjpeg-turbo.org/pmwiki/uploads/About/TwoIssueswiththeJPEGStandard.pdf).
"""

import re

from gateway.media.invalid_media import InvalidMedia

_MOST_SCANS = 100
"""libjpeg's own script for colours has 10, and those of programs that look for the smallest file have up to some 20."""
_MOST_SEGMENTS = 10_000
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Not what is a byte of 255 among a scan's data (0), nor where a reader may begin anew (D0 to D7)."""
_BARE = (0x01, 0xD8)
_END = 0xD9
_SCAN = 0xDA


def check(data: bytes) -> None:
    """Raise `Unusable` for a JPEG of too many scans, or more segments than any has. Other formats pass."""
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
            raise InvalidMedia(f"the picture has more than the {_MOST_SCANS} scans that this service takes")
        at += int.from_bytes(data[at : at + 2])
    raise InvalidMedia(f"the picture has more than the {_MOST_SEGMENTS} segments that this service takes")
