"""Files inside requests: data URLs (RFC 2397) and base64.

Data is decoded in pieces, and other tasks run between two pieces. No step blocks the event loop for more than a few
milliseconds, or takes more memory than the result.
"""

import asyncio
import binascii
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from gateway.media.invalid_media import InvalidMedia

_MAX_DATA_URL_HEADER = 1024
"""Most characters of a data URL before its comma."""
_CHUNK_SIZE = 256 * 1024
_ESCAPE = re.compile(rb"%(?=[0-9A-Fa-f]{2})")
_NO_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SPACES = b" \t\n\r\v\f"
_ALPHABET = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True, slots=True)
class EncodedText:
    """Encoded data: `text` from the character `start` on, in base64, or else in percent-encoding."""

    text: str
    start: int
    base64: bool

    def has_percent_escapes(self) -> bool:
        """Return whether the data have percent escapes. Decoding many of them takes long."""
        return self.text.find("%", self.start) >= 0

    def to_bytes(self) -> bytes:
        """Return the encoded data as bytes. Raises `InvalidMedia`."""
        try:
            return self.text[self.start :].encode("ascii" if self.base64 else "utf-8")
        except UnicodeEncodeError:
            raise _invalid_base64() if self.base64 else InvalidMedia("the text is not valid Unicode") from None


def parse_data_url(url: str, *, limit: int) -> tuple[EncodedText, str]:
    """Return the encoded data of a data URL, and its declared media type (`text/plain` if there is none).

    Raises `InvalidMedia`, also when the data would have more than `limit` bytes.
    """
    comma = url.find(",", 0, _MAX_DATA_URL_HEADER)
    if comma < 0:
        if len(url) > _MAX_DATA_URL_HEADER:
            raise InvalidMedia(
                f"the part of the data URL before its comma is longer than {_MAX_DATA_URL_HEADER} characters"
            )
        raise InvalidMedia("the data URL has no comma; its form is 'data:<media type>;base64,<data>'")
    media_type, *parameters = url[len("data:") : comma].split(";")
    declared = media_type.strip().lower() or "text/plain"
    if any(parameter.strip().lower() == "base64" for parameter in parameters):
        return parse_base64(url, start=comma + 1, limit=limit), declared
    if len(url) - comma - 1 > 3 * limit:  # a byte takes at most three characters, as an escape
        raise too_large_error(limit)
    return EncodedText(url, comma + 1, base64=False), declared


def parse_base64(text: str, *, limit: int, start: int = 0) -> EncodedText:
    """Return the encoded data of base64. Raises `InvalidMedia` when they would have more than `limit` bytes."""
    if (len(text) - start) // 4 * 3 > limit + limit // 32:  # line breaks and padding add a little
        raise too_large_error(limit)
    return EncodedText(text, start, base64=True)


async def decode(encoded: EncodedText, *, limit: int) -> bytes:
    """Return decoded data, at most `limit` bytes. They must have no percent escapes. Raises `InvalidMedia`."""
    parts, size = [], 0
    async for part in _yield_to_event_loop(iter_base64(encoded) if encoded.base64 else _iter_plain_text(encoded)):
        size += len(part)
        if size > limit:
            raise too_large_error(limit)
        parts.append(part)
    return b"".join(parts)


def iter_base64(encoded: EncodedText) -> Iterator[bytes]:
    """Yield decoded base64, in either alphabet, with or without padding and line breaks. Raises `InvalidMedia`."""
    rest, ended = b"", False
    for at in range(encoded.start, len(encoded.text), _CHUNK_SIZE):
        try:
            piece = encoded.text[at : at + _CHUNK_SIZE].encode("ascii")
        except UnicodeEncodeError:
            raise _invalid_base64() from None
        piece = rest + piece.translate(_ALPHABET, _SPACES)
        if b"=" in piece or ended:  # padding is allowed at the end only
            body = piece.rstrip(b"=")
            if b"=" in body or (ended and body):
                raise _invalid_base64()
            ended, piece = ended or len(body) < len(piece), body
            rest, piece = piece[len(piece) // 4 * 4 :], piece[: len(piece) // 4 * 4]
            if rest:  # an incomplete group ends the data
                yield _decode_base64_chunk(piece)
                piece, rest = rest + b"=" * (-len(rest) % 4), b""
        else:
            rest, piece = piece[len(piece) // 4 * 4 :], piece[: len(piece) // 4 * 4]
        yield _decode_base64_chunk(piece)
    if rest:
        yield _decode_base64_chunk(rest + b"=" * (-len(rest) % 4))


def percent_decode(data: bytes) -> bytes:
    """Return bytes with percent escapes decoded. Other percent signs stay."""
    # With "=" for "%", this is quoted-printable, for which the standard library has a decoder in C.
    data = data.replace(b"=", b"=3D")
    return binascii.a2b_qp(_ESCAPE.sub(b"=", data) if _NO_ESCAPE.search(data) else data.replace(b"%", b"="))


def too_large_error(limit: int) -> InvalidMedia:
    """Return the error for data of more than `limit` bytes."""
    return InvalidMedia(f"it is larger than the limit of {limit} bytes")


def _decode_base64_chunk(piece: bytes) -> bytes:
    try:
        return binascii.a2b_base64(piece, strict_mode=True)
    except binascii.Error:
        raise _invalid_base64() from None


def _iter_plain_text(encoded: EncodedText) -> Iterator[bytes]:
    try:
        for at in range(encoded.start, len(encoded.text), _CHUNK_SIZE):
            yield encoded.text[at : at + _CHUNK_SIZE].encode()
    except UnicodeEncodeError:
        raise InvalidMedia("the text is not valid Unicode") from None


async def _yield_to_event_loop(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    for number, part in enumerate(parts):
        if number:
            await asyncio.sleep(0)
        yield part


def _invalid_base64() -> InvalidMedia:
    return InvalidMedia("the data is not valid base64")
