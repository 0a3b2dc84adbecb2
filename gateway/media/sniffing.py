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
    return "video/mp2t" if packets == b"\x47" * 4 else None


def _is_plain(start: bytes) -> bool:
    """Return whether the first bytes are UTF-8 text only. No known binary format begins like that."""
    text = start.decode("utf-8", "ignore")
    whole = len(text.encode()) > len(start) - 4  # the last character may be cut off
    return whole and not any(character < " " for character in text if character not in "\t\n\r\f")
