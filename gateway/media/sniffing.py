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
}

_NOT_PLAIN_TEXT = ("application/rtf", "application/postscript")
"""Formats of printable characters that are not plain text."""

_PDF_HEADER_SEARCH_BYTES = 1024
"""Readers accept a PDF whose header comes a little late (ISO 32000-1, annex H, note 13)."""


@dataclass(frozen=True, slots=True)
class SniffedType:
    """The detected type of data."""

    kind: MediaKind
    media_type: str


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
        if data[:1] == b"\xff" and len(data) > 1 and data[1] & 0xE6 == 0xE2:
            return SniffedType("audio", "audio/mpeg")
        return SniffedType("document", PLAIN_TEXT)
    media_type = _ALIASES.get(guess.mime, guess.mime)
    if media_type in IMAGE_TYPES:
        return SniffedType("image", media_type)
    if media_type in AUDIO_CONTAINERS:
        return SniffedType("audio", media_type)
    return SniffedType("unknown", media_type)


def _is_plain(start: bytes) -> bool:
    """Return whether the first bytes are UTF-8 text only. No known binary format begins like that."""
    text = start.decode("utf-8", "ignore")
    whole = len(text.encode()) > len(start) - 4  # the last character may be cut off
    return whole and not any(character < " " for character in text if character not in "\t\n\r\f")
