"""What bytes are, by their first ones. What they are declared to be is not trusted."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

MediaKind: TypeAlias = Literal["picture", "document", "sound", "unknown"]

PDF = "application/pdf"
ZIP = "application/zip"
OLE = "application/x-ole-storage"
PLAIN_TEXT = "text/plain"

IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp")
"""Pictures that the backends read."""

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
}
"""Sounds that can be decoded, with FFmpeg's name for what they are packed in. Of a video it is the sound track."""

_ALIASES = {
    "image/apng": "image/png",  # an animation whose first frame any reader of PNG sees
    "image/x-ms-bmp": "image/bmp",
    "audio/x-wav": "audio/wav",
    "audio/x-flac": "audio/flac",
    "audio/m4a": "audio/mp4",
    "video/x-m4v": "video/mp4",
    "application/ogg": "audio/ogg",
}

_NOT_PLAIN_TEXT = ("application/rtf", "application/postscript")
"""Written in letters, but not to be read as text."""

_PDF_HEADER_SEARCH_BYTES = 1024
"""Readers accept a PDF whose header comes a little late (ISO 32000-1, annex H, note 13)."""


@dataclass(frozen=True, slots=True)
class SniffedType:
    """What bytes are."""

    kind: MediaKind
    media_type: str


def sniff(data: bytes) -> SniffedType:
    """Return what `data` is: a kind this package takes, or `unknown` with its media type.

    What bears no mark at all is a document of the type `text/plain`; whether it really is text is seen when it is read.
    """
    import filetype  # 20 ms that a gateway without such requests need not spend

    if b"%PDF-" in data[:_PDF_HEADER_SEARCH_BYTES]:
        return SniffedType("document", PDF)
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return SniffedType("document", ZIP)  # Office files are; which one is seen inside
    if data.startswith(bytes.fromhex("d0cf11e0a1b11ae1")):
        return SniffedType("document", OLE)
    guess = filetype.guess(data)
    if guess is not None and guess.mime not in _NOT_PLAIN_TEXT and _is_plain(data[:512]):
        guess = None  # a text that begins with "BM" is no bitmap
    if guess is None:
        # FFmpeg's own rule for MP3 without tags asks for a frame's sync word; text never begins so.
        if data[:1] == b"\xff" and len(data) > 1 and data[1] & 0xE6 == 0xE2:
            return SniffedType("sound", "audio/mpeg")
        return SniffedType("document", PLAIN_TEXT)
    media_type = _ALIASES.get(guess.mime, guess.mime)
    if media_type in IMAGE_TYPES:
        return SniffedType("picture", media_type)
    if media_type in AUDIO_CONTAINERS:
        return SniffedType("sound", media_type)
    return SniffedType("unknown", media_type)


def _is_plain(start: bytes) -> bool:
    """Whether the first bytes hold nothing but UTF-8 text; no binary format that we know begins so."""
    text = start.decode("utf-8", "ignore")
    whole = len(text.encode()) > len(start) - 4  # the last character may be cut
    return whole and not any(character < " " for character in text if character not in "\t\n\r\f")
