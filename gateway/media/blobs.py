"""Files of requests in memory, with their detected types."""

from collections.abc import Collection
from dataclasses import dataclass

from gateway.media import sniffing
from gateway.media.invalid_media import InvalidMedia
from gateway.media.sniffing import MediaKind, SniffedType

_EXPECTED = {
    "image": "an image (PNG, JPEG, WebP, GIF or BMP)",
    "document": "a document (PDF, DOCX, PPTX, XLSX, HTML or a text file)",
    "audio": "an audio file (WAV, MP3, FLAC, Ogg, M4A, AAC or WebM)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """The bytes of a file. `media_type` is detected; `declared_type` and `name` are not trusted and may be empty."""

    data: bytes
    kind: MediaKind
    media_type: str
    declared_type: str = ""
    name: str = ""


def sniff_blob(data: bytes, accept: Collection[MediaKind]) -> Blob:
    """Return `data` with its type. Raises `InvalidMedia` if it is empty, or its kind is not among `accept`."""
    if not data:
        raise InvalidMedia("the file is empty")
    sniffed = sniffing.sniff(data)
    if sniffed.kind not in accept:
        raise _unexpected_type(sniffed, accept)
    return Blob(data=data, kind=sniffed.kind, media_type=sniffed.media_type)


def _unexpected_type(sniffed: SniffedType, accept: Collection[MediaKind]) -> InvalidMedia:
    expected = " or ".join(_EXPECTED[kind] for kind in accept)
    return InvalidMedia(f"expected {expected}, got {sniffed.description}")
