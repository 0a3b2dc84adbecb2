"""Blocks of headers: https://www.rfc-editor.org/rfc/rfc7541"""

from collections.abc import Iterable

from hpack import Decoder, HPACKError

from gateway.triton.rpc import frames
from gateway.triton.rpc.frames import ProtocolError

_MAX_HEADER_BYTES = 2**20
_MAX_CACHED_BLOCKS = 64
_MAX_CACHED_BLOCK_BYTES = 512


def encode_block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Literals that nobody indexes, so that no state is shared with the server.

    https://www.rfc-editor.org/rfc/rfc7541#section-6.2.2, and #section-6.3 for the first byte: this end uses a table of
    size 0, which has to be said where a server allows less than there is at first.
    """
    return b"\x20" + b"".join(b"\0" + _string(name) + _string(value) for name, value in fields)


def _string(value: bytes) -> bytes:
    """https://www.rfc-editor.org/rfc/rfc7541#section-5.2, with the length in up to two bytes more."""
    size = len(value)
    if size < 127:
        return bytes([size]) + value
    return bytes([127, (size - 127) & 0x7F | 0x80, (size - 127) >> 7]) + value


class HeaderDecoder:
    """Puts blocks together and reads them, also those nobody wants: the table of names is the connection's."""

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=_MAX_HEADER_BYTES)
        self._stream = self._flags = 0
        self._block = bytearray()
        self._cache: dict[bytes, dict[bytes, bytes]] = {}
        """Blocks that were read since the table was changed last: servers answer one call after the other alike."""
        self.open = False
        """Whether a block has begun and not ended; nothing else may come before that."""

    def begin(self, flags: int, stream: int, content: bytes) -> dict[bytes, bytes] | None:
        """The fields of a HEADERS frame, where they are whole. Raises `ProtocolError`."""
        self._stream, self._flags = stream, flags
        self._block[:] = frames.strip_padding(content, flags)
        return self._read(flags)

    def go_on(self, flags: int, stream: int, content: bytes) -> tuple[int, dict[bytes, bytes] | None]:
        """The flags of the HEADERS frame that is continued, and its fields where they are whole now."""
        if not self.open or self._stream != stream:
            raise ProtocolError("headers go on that never began")
        self._block += content
        if len(self._block) > _MAX_HEADER_BYTES:
            raise ProtocolError("headers are too long")
        return self._flags, self._read(flags)

    def _read(self, flags: int) -> dict[bytes, bytes] | None:
        self.open = not flags & frames.END_HEADERS
        if self.open:
            return None
        block = bytes(self._block)
        fields = self._cache.get(block)
        if fields is None:
            fields = self._decode(block)
        return dict(fields)

    def _table(self) -> tuple[object, tuple[int, int]]:
        """The latest field of the table, and how many it has of how large; another one is a change, if an equal one."""
        table = self._decoder.header_table
        latest = table.dynamic_entries[0] if table.dynamic_entries else None
        return latest, (len(table.dynamic_entries), table.maxsize)

    def _decode(self, block: bytes) -> dict[bytes, bytes]:
        latest, shape = self._table()
        try:
            fields = {_bytes(name): _bytes(value) for name, value in self._decoder.decode(block, raw=True)}
        except HPACKError as error:
            raise ProtocolError(f"headers cannot be read ({error})") from None
        after = self._table()
        changed = after[0] is not latest or after[1] != shape
        if changed or len(self._cache) == _MAX_CACHED_BLOCKS:
            self._cache.clear()
        if not changed and len(block) <= _MAX_CACHED_BLOCK_BYTES:
            self._cache[block] = fields
        return fields


def _bytes(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
