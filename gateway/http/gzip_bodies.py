"""Bodies that are packed by gzip (RFC 1952): unpacked by pieces, and no further than a body may be long."""

import zlib

from starlette.datastructures import Headers

from gateway.errors import InvalidRequest, RequestTooLarge, UnsupportedEncoding

_NAMES = frozenset({"gzip", "x-gzip"})
_MAX_MEMBERS = 1024
"""A file of gzip may be several, one behind the other, and each may hold nothing and still takes time to begin with.
Programs that pack by blocks of 64 KiB come to half as many in the largest body that is taken by default."""
_INPUT_BYTES = 64 * 1024
"""Bytes that are unpacked at a time, and those that may come of them. Other threads go on meanwhile."""
_MAX_OUTPUT_BYTES = 256 * 1024
_GZIP = 16 + zlib.MAX_WBITS
_MAGIC = b"\x1f\x8b"


def is_gzipped(headers: Headers) -> bool:
    """Whether a body with these headers is packed by gzip. Raises `UnsupportedEncoding` where it is by another way."""
    given = ",".join(headers.getlist("content-encoding"))
    if not given:
        return False
    codings = [name for name in (part.strip().lower() for part in given.split(",")) if name not in ("", "identity")]
    if codings and (len(codings) > 1 or codings[0] not in _NAMES):
        raise UnsupportedEncoding(
            f"A body is taken as it is, or packed by gzip once; this one is said to be '{given[:64]}'.",
            param="Content-Encoding",
        )
    return bool(codings)


class GzipDecoder:
    """What bytes in gzip stand for: `body`, as far as it is unpacked."""

    def __init__(self, packed: bytes | bytearray, limit: int) -> None:
        """`limit` is how many bytes the body may have."""
        self.body = bytearray()
        self._compressed = packed
        self._at = 0
        self._limit = limit
        self._member: zlib._Decompress | None = None
        self._num_members = 0

    def decompress(self, enough: int | None = None) -> bool:
        """Unpack all, or a little more than `enough` bytes, of which as many are read. Returns whether that is all.

        Of what takes long to read nothing may come, such as blocks that bring a code of their own and no byte.

        Raises `InvalidRequest` where it is no gzip, and `RequestTooLarge`.
        """
        begun = self._at
        try:
            with memoryview(self._compressed) as view:
                while self._at < len(view):
                    if enough is not None and (len(self.body) > enough or self._at > begun + enough):
                        return False
                    self._step(view[self._at : self._at + _INPUT_BYTES])
            if self._member is not None or not self._num_members:
                raise _invalid("it ends before its end")
        except BaseException:
            self.body.clear()  # whoever keeps the error keeps this frame
            raise
        return True

    def _step(self, packed: memoryview) -> None:
        if self._member is None:
            if self._num_members and packed[:2] != _MAGIC[: len(packed)]:
                raise _invalid("something that is none follows its end")
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
            raise RequestTooLarge(f"The body is larger than this service takes, {self._limit} bytes, once unpacked.")
        self.body += piece


def _invalid(reason: str) -> InvalidRequest:
    return InvalidRequest(f"The body is not valid gzip, as which it was sent: {reason}.", param="Content-Encoding")
