"""Bodies that are packed by gzip (RFC 1952): unpacked by pieces, so that a few bytes never become many at once.

How many bytes a body becomes is counted by whoever asks for the pieces; nothing is unpacked that was not asked for.
"""

import zlib

from starlette.datastructures import Headers

from gateway.errors import InvalidRequest, UnsupportedEncoding

_NAMES = frozenset({"gzip", "x-gzip"})
_MOST_MEMBERS = 1024
"""A file of gzip may be several, one behind the other, and each may hold nothing and still takes time to begin with.
Programs that pack by blocks of 64 KiB come to half as many in the largest body that is taken by default."""
_GZIP = 16 + zlib.MAX_WBITS


def is_packed(headers: Headers) -> bool:
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


class Gunzip:
    """What a body in gzip stands for."""

    def __init__(self) -> None:
        self._fed = b""
        self._member: zlib._Decompress | None = None
        self._members = 0

    @property
    def waiting(self) -> int:
        """Bytes that were fed and are not unpacked."""
        return len(self._fed)

    def feed(self, data: bytes) -> None:
        """Take what came next."""
        self._fed = self._fed + data if self._fed else data

    def unpack(self, most: int) -> bytes:
        """Return the next bytes, at most so many; none where all that was fed is unpacked. Raises `InvalidRequest`."""
        while self._fed:
            if self._member is None:
                if self._members and not self._fed.startswith(b"\x1f\x8b"[: len(self._fed)]):
                    raise _invalid("something that is none follows its end")
                self._members += 1
                if self._members > _MOST_MEMBERS:
                    raise _invalid(f"it has more than {_MOST_MEMBERS} members")
                self._member = zlib.decompressobj(_GZIP)
            try:
                piece = self._member.decompress(self._fed, most)
            except zlib.error as error:
                raise _invalid(str(error).partition(": ")[2] or "its bytes are damaged") from None
            self._fed = self._member.unused_data or self._member.unconsumed_tail
            if self._member.eof:
                self._member = None
            if piece:
                return piece
        return b""

    def check_end(self) -> None:
        """Raise `InvalidRequest` where something is missing of the last member."""
        if self._member is not None or not self._members:
            raise _invalid("it ends before its end")


def _invalid(reason: str) -> InvalidRequest:
    return InvalidRequest(f"The body is not valid gzip, as which it was sent: {reason}.", param="Content-Encoding")
