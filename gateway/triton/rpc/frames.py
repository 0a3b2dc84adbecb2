"""HTTP/2 frames: https://www.rfc-editor.org/rfc/rfc9113#section-6"""

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER_BYTES = 9
DEFAULT_WINDOW_BYTES = 65_535
"""Flow-control window before any SETTINGS or WINDOW_UPDATE, in bytes."""
MAX_FRAME_BYTES = 16_384
"""Longest payload of a frame before any SETTINGS, in bytes."""
MAX_WINDOW_BYTES = 2**31 - 1

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20


class FrameType(IntEnum):
    """Types of frames: https://www.rfc-editor.org/rfc/rfc9113#section-11.2"""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Setting(IntEnum):
    """Parameters of SETTINGS: https://www.rfc-editor.org/rfc/rfc9113#section-6.5.2"""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5


class ProtocolError(Exception):
    """The server sent something that HTTP/2 does not allow."""


_head = struct.Struct(">HBBBL")
_setting = struct.Struct(">HL")


def encode_frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    """Return one frame."""
    size = len(content)
    return _head.pack(size >> 8, size & 0xFF, kind, flags, stream) + content


def parse_frame_header(data: bytes, at: int) -> tuple[int, int, int, int]:
    """Return length of the payload, type, flags and stream of the frame that begins at `data[at]`."""
    high, low, kind, flags, stream = _head.unpack_from(data, at)
    return high << 8 | low, kind, flags, stream & MAX_WINDOW_BYTES


def parse_uint32(content: bytes) -> int:
    """Return the only field of WINDOW_UPDATE or RST_STREAM, or one field of GOAWAY. Raises `ProtocolError`."""
    if len(content) != 4:
        raise ProtocolError("a frame is not as long as its kind has to be")
    return int.from_bytes(content, "big")


def encode_window_update(stream: int, size: int) -> bytes:
    """Return a frame that lets the server send `size` bytes more. Stream 0 is the whole connection."""
    return encode_frame(FrameType.WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def encode_rst_stream(stream: int, code: int) -> bytes:
    """Return a frame that ends a stream with an error code."""
    return encode_frame(FrameType.RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def encode_settings(settings: dict[Setting, int]) -> bytes:
    """Return a SETTINGS frame."""
    return encode_frame(
        FrameType.SETTINGS, 0, 0, b"".join(_setting.pack(name, value) for name, value in settings.items())
    )


def parse_settings(content: bytes) -> list[tuple[int, int]]:
    """Return the parameters of a SETTINGS frame, known or not, with their values. Raises `ProtocolError`."""
    if len(content) % _setting.size:
        raise ProtocolError("settings are cut off")
    settings = list(_setting.iter_unpack(content))
    if any(name == Setting.INITIAL_WINDOW_SIZE and value > MAX_WINDOW_BYTES for name, value in settings):
        raise ProtocolError("a window is larger than any may be")
    return settings


def strip_padding(content: bytes, flags: int) -> bytes:
    """Return the payload of a DATA or HEADERS frame without padding and priority. Raises `ProtocolError`."""
    padding = 0
    if flags & PADDED:
        padding, content = content[0] if content else 1, content[1:]
    if flags & PRIORITY:
        padding, content = padding + max(0, 5 - len(content)), content[5:]
    if padding > len(content):
        raise ProtocolError("a frame is all padding")
    return content[: len(content) - padding]
