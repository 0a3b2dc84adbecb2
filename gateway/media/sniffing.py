"""Detection of media types by the first bytes. Declared types are not trusted."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

MediaKind: TypeAlias = Literal["image", "document", "audio", "unknown"]

PDF = "application/pdf"
ZIP = "application/zip"
OLE = "application/x-ole-storage"
PLAIN_TEXT = "text/plain"

IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp")
"""Images that the backends decode."""

AUDIO_CONTAINERS = {
    "audio/wav": "wav",
    "audio/mpeg": "mp3",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "audio/mp4": "mov",
    "video/mp4": "mov",
    "audio/aac": "aac",
    "audio/webm": "matroska",
    "video/webm": "matroska",
    "video/x-matroska": "matroska",
    "video/quicktime": "mov",
    "video/3gpp": "mov",
    "video/x-msvideo": "avi",
    "video/x-flv": "flv",
    "video/x-ms-asf": "asf",
    "video/mpeg": "mpeg",
    "video/mp2t": "mpegts",
    "audio/aiff": "aiff",
    "audio/amr": "amr",
    "audio/basic": "au",
    "audio/x-caf": "caf",
    "audio/x-w64": "w64",
}
"""Audio that can be decoded, with FFmpeg's name of the container. Of a video, the sound track is decoded."""

VIDEO_CONTAINERS = {
    media_type: container
    for media_type, container in AUDIO_CONTAINERS.items()
    if media_type.startswith("video/") or media_type in ("audio/mp4", "audio/ogg", "audio/webm")
} | {"image/gif": "gif"}
"""Containers whose frames can be decoded. Some of them may hold sound alone."""

_ALIASES = {
    "image/apng": "image/png",  # an animation, whose first frame PNG decoders show
    "image/x-ms-bmp": "image/bmp",
    "audio/x-wav": "audio/wav",
    "audio/x-flac": "audio/flac",
    "audio/m4a": "audio/mp4",
    "video/x-m4v": "video/mp4",
    "application/ogg": "audio/ogg",
    "video/x-ms-wmv": "video/x-ms-asf",
    "audio/x-aiff": "audio/aiff",
}

_AUDIO_STARTS = (
    (b"RF64", "audio/wav"),
    (b"BW64", "audio/wav"),
    (b"riff\x2e\x91\xcf\x11", "audio/x-w64"),
    (b".snd", "audio/basic"),
    (b"caff", "audio/x-caf"),
    (b"FORM", "audio/aiff"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video/x-ms-asf"),
    (b"\0\0\x01\xba", "video/mpeg"),
)
"""First bytes of containers that the library does not know in every form."""
_QUICKTIME_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_IMAGE_BRANDS = (b"hei", b"hev", b"mif1", b"msf1", b"avi", b"crx", b"jxl", b"jp2")
"""Beginnings of the brands of images in containers like MP4."""
_TS_PACKET_BYTES = 188
_MP3_SEARCH_BYTES = 8192
_MP3_FRAMES = 3
"""Frames in a row that show an MP3. The largest frame has 1,441 bytes, so they fit in the bytes that are searched."""
_MP3_BIT_RATES = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MP3_LOW_BIT_RATES = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
"""Kilobits a second by the index in the header, from 1 on; the second row is that of MPEG-2 and 2.5."""

_NOT_PLAIN_TEXT = ("application/rtf", "application/postscript")
"""Formats of printable characters that are not plain text."""

_PDF_HEADER_SEARCH_BYTES = 1024
"""Readers accept a PDF whose header comes a little late (ISO 32000-1, annex H, note 13)."""


@dataclass(frozen=True, slots=True)
class SniffedType:
    """The detected type of data."""

    kind: MediaKind
    media_type: str

    @property
    def description(self) -> str:
        """The type in words, for error messages."""
        if self.media_type == PLAIN_TEXT:
            return "text or an unknown file type"
        return f"a file of the type {self.media_type}"


def sniff(data: bytes) -> SniffedType:
    """Return the type of `data`: a kind that this package decodes, or `unknown` with its media type.

    Data without a known signature counts as a document of type `text/plain`; the decoder finds out if it is text.
    """
    import filetype  # the import takes 20 ms; a gateway without such requests does not need it

    if b"%PDF-" in data[:_PDF_HEADER_SEARCH_BYTES]:
        return SniffedType("document", PDF)
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return SniffedType("document", ZIP)  # Office files are ZIP archives; the decoder finds out which
    if data.startswith(bytes.fromhex("d0cf11e0a1b11ae1")):
        return SniffedType("document", OLE)
    guess = filetype.guess(data)
    if guess is not None and guess.mime not in _NOT_PLAIN_TEXT and _is_plain(data[:512]):
        guess = None  # a text that begins with "BM" is no bitmap
    if guess is None:
        # MP3 without tags begins with the sync word of a frame, by FFmpeg's rule. Text never does.
        # Layer II is no more likely to be text.
        if data[:1] == b"\xff" and len(data) > 1 and data[1] & 0xE6 in (0xE2, 0xE4):
            return SniffedType("audio", "audio/mpeg")
        if media_type := _other_sound(data):
            return SniffedType("audio", media_type)
        return SniffedType("document", PLAIN_TEXT)
    media_type = _ALIASES.get(guess.mime, guess.mime)
    if media_type in IMAGE_TYPES:
        return SniffedType("image", media_type)
    if media_type in AUDIO_CONTAINERS:
        return SniffedType("audio", media_type)
    return SniffedType("unknown", media_type)


def _other_sound(data: bytes) -> str | None:
    """Return the media type of a container of sound that the library does not know; None if it is none."""
    for start, media_type in _AUDIO_STARTS:
        if data.startswith(start) and not _is_plain(data[:512]):
            return media_type
    if data[4:8] in _QUICKTIME_BOXES and not data[8:12].startswith(_IMAGE_BRANDS):
        return "video/quicktime"
    packets = data[: 4 * _TS_PACKET_BYTES : _TS_PACKET_BYTES]
    if packets == b"\x47" * 4:
        return "video/mp2t"
    return "audio/mpeg" if _has_mp3_frames(data[:_MP3_SEARCH_BYTES]) else None


def _has_mp3_frames(data: bytes) -> bool:
    """Return whether frames of MP3 follow each other in `data`, as in a recording that begins within a frame."""
    start = data.find(b"\xff")
    while start >= 0:
        at = start
        for _ in range(_MP3_FRAMES):
            size = _mp3_frame_bytes(data[at : at + 4])
            if not size:
                break
            at += size
        else:
            return True
        start = data.find(b"\xff", start + 1)
    return False


def _mp3_frame_bytes(header: bytes) -> int:
    """Return the size of the frame of MPEG audio, layer III, with this header; 0: it is none."""
    if len(header) < 4 or header[1] & 0xE6 != 0xE2 or header[1] & 0x18 == 0x08:
        return 0
    is_mpeg1 = header[1] & 0x18 == 0x18
    rate_index, frequency_index = header[2] >> 4, header[2] >> 2 & 3
    if rate_index in (0, 15) or frequency_index == 3:
        return 0
    bit_rate = (_MP3_BIT_RATES if is_mpeg1 else _MP3_LOW_BIT_RATES)[rate_index - 1] * 1000
    sample_rate = (44_100, 48_000, 32_000)[frequency_index] >> {0x18: 0, 0x10: 1, 0x00: 2}[header[1] & 0x18]
    return (144 if is_mpeg1 else 72) * bit_rate // sample_rate + (header[2] >> 1 & 1)


def _is_plain(start: bytes) -> bool:
    """Return whether the first bytes are UTF-8 text only. No known binary format begins like that."""
    text = start.decode("utf-8", "ignore")
    whole = len(text.encode()) > len(start) - 4  # the last character may be cut off
    return whole and not any(character < " " for character in text if character not in "\t\n\r\f")
