"""Decompression of gzip bodies (RFC 1952), piece by piece and up to a limit."""

import zlib

from starlette.datastructures import Headers

from gateway.errors import InvalidRequest, RequestTooLarge, UnsupportedEncoding

_NAMES = frozenset({"gzip", "x-gzip"})
_MAX_MEMBERS = 1024
"""Most members of a gzip file. An empty member costs time as well. Programs that compress blocks of 64 KiB need half as
many for the largest body that is allowed by default."""
_INPUT_BYTES = 64 * 1024
"""Bytes of input that are decompressed at a time, and below those of output. Other threads get turns in between."""
_MAX_OUTPUT_BYTES = 256 * 1024
_GZIP = 16 + zlib.MAX_WBITS
_MAGIC = b"\x1f\x8b"


def is_gzipped(headers: Headers) -> bool:
    """Return whether the body is compressed by gzip. Raises `UnsupportedEncoding` for other encodings."""
    given = ",".join(headers.getlist("content-encoding"))
    if not given:
        return False
    codings = [name for name in (part.strip().lower() for part in given.split(",")) if name not in ("", "identity")]
    if codings and (len(codings) > 1 or codings[0] not in _NAMES):
        raise UnsupportedEncoding(
            f"A body may be compressed by gzip once, or not at all, but not by '{given[:64]}'.",
            param="Content-Encoding",
        )
    return bool(codings)


class GzipDecoder:
    """Decompresses gzip. `body` is the output so far."""

    def __init__(self, packed: bytes | bytearray, limit: int) -> None:
        """`limit` is the most bytes that the body may have after decompression."""
        self.body = bytearray()
        self._compressed = packed
        self._at = 0
        self._limit = limit
        self._member: zlib._Decompress | None = None
        self._num_members = 0

    def decompress(self, enough: int | None = None) -> bool:
        """Decompress all, or stop a little beyond `enough` bytes of input or output. Return whether that was all.

        Input is limited too, because there are blocks that cost time and have no output.

        Raises `InvalidRequest` for invalid gzip, and `RequestTooLarge`.
        """
        begun = self._at
        try:
            with memoryview(self._compressed) as view:
                while self._at < len(view):
                    if enough is not None and (len(self.body) > enough or self._at > begun + enough):
                        return False
                    self._step(view[self._at : self._at + _INPUT_BYTES])
            if self._member is not None or not self._num_members:
                raise _invalid("it ends too early")
        except BaseException:
            self.body.clear()  # who keeps the error keeps this frame
            raise
        return True

    def _step(self, packed: memoryview) -> None:
        if self._member is None:
            if self._num_members and packed[:2] != _MAGIC[: len(packed)]:
                raise _invalid("something else follows its end")
            self._num_members += 1
            if self._num_members > _MAX_MEMBERS:
                raise _invalid(f"it has more than {_MAX_MEMBERS} members")
            self._member = zlib.decompressobj(_GZIP)
        try:
            piece = self._member.decompress(packed, _MAX_OUTPUT_BYTES)
        except zlib.error as error:
            raise _invalid(str(error).partition(": ")[2] or "its bytes are damaged") from None
        self._at += len(packed) - len(self._member.unused_data or self._member.unconsumed_tail)
        if self._member.eof:
            self._member = None
        if len(self.body) + len(piece) > self._limit:
            raise RequestTooLarge(
                f"The body is larger than this service takes, {self._limit} bytes, after decompression."
            )
        self.body += piece


def _invalid(reason: str) -> InvalidRequest:
    return InvalidRequest(f"The body is not valid gzip: {reason}.", param="Content-Encoding")
