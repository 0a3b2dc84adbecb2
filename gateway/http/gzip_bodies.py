"""Decompression of gzip bodies (RFC 1952), piece by piece and up to a limit."""

import zlib

from starlette.datastructures import Headers

from gateway.errors import InvalidRequest, RequestTooLarge, UnsupportedEncoding

_NAMES = frozenset({"gzip", "x-gzip"})
_MAX_MEMBERS = 1024
"""Most members of a gzip file: even an empty member takes time. Programs that compress blocks of 64 KiB write 512
members for the largest body that is allowed by default."""
_INPUT_BYTES = 64 * 1024
"""Bytes of input that are decompressed in one call. Other threads can run between two calls."""
_MAX_OUTPUT_BYTES = 256 * 1024
"""Most bytes of output of one call."""
_GZIP = 16 + zlib.MAX_WBITS
_MAGIC = b"\x1f\x8b"


def is_gzipped(headers: Headers) -> bool:
    """Return whether the body is compressed by gzip. Raises `UnsupportedEncoding` for other encodings."""
    encodings = ",".join(headers.getlist("content-encoding"))
    if not encodings:
        return False
    codings = [name for name in (part.strip().lower() for part in encodings.split(",")) if name not in ("", "identity")]
    if codings and (len(codings) > 1 or codings[0] not in _NAMES):
        raise UnsupportedEncoding(
            f"The content encoding '{encodings[:64]}' is not supported. Send the body uncompressed or as gzip.",
            param="Content-Encoding",
        )
    return bool(codings)


class GzipDecoder:
    """Decompresses gzip. `body` is the output so far."""

    def __init__(self, compressed: bytes | bytearray, limit: int) -> None:
        """`limit` is the most bytes that the body may have after decompression. It applies to the whole body."""
        self.body = bytearray()
        self._compressed = compressed
        self._position = 0
        self._limit = limit
        self._member: zlib._Decompress | None = None
        self._num_members = 0

    def decompress(self, stop_after: int | None = None) -> bool:
        """Decompress the body; with `stop_after`, stop soon after that many bytes of input or output in this call.

        Return whether the whole body is decompressed. Input is limited too, because some blocks take time and have no
        output.

        Raises `InvalidRequest` for invalid gzip, and `RequestTooLarge`.
        """
        start = self._position
        try:
            with memoryview(self._compressed) as view:
                while self._position < len(view):
                    if stop_after is not None and (len(self.body) > stop_after or self._position > start + stop_after):
                        return False
                    self._step(view[self._position : self._position + _INPUT_BYTES])
            if self._member is not None or not self._num_members:
                raise _invalid("it is truncated")
        except BaseException:
            self.body.clear()  # an error that is stored keeps this frame, and so the body, in memory
            raise
        return True

    def _step(self, compressed: memoryview) -> None:
        if self._member is None:
            if self._num_members and compressed[:2] != _MAGIC[: len(compressed)]:
                raise _invalid("other data follows its end")
            self._num_members += 1
            if self._num_members > _MAX_MEMBERS:
                raise _invalid(f"it has more than {_MAX_MEMBERS} members")
            self._member = zlib.decompressobj(_GZIP)
        try:
            piece = self._member.decompress(compressed, _MAX_OUTPUT_BYTES)
        except zlib.error as error:
            raise _invalid(str(error).partition(": ")[2] or "it is damaged") from None
        self._position += len(compressed) - len(self._member.unused_data or self._member.unconsumed_tail)
        if self._member.eof:
            self._member = None
        if len(self.body) + len(piece) > self._limit:
            raise RequestTooLarge(f"The body is larger than the limit of {self._limit} bytes after decompression.")
        self.body += piece


def _invalid(reason: str) -> InvalidRequest:
    return InvalidRequest(f"The body is not valid gzip: {reason}.", param="Content-Encoding")
