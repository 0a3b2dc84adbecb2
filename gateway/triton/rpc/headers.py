"""Header compression, HPACK: https://www.rfc-editor.org/rfc/rfc7541"""

from collections.abc import Iterable

from hpack import Decoder, HPACKError

from gateway.triton.rpc import frames
from gateway.triton.rpc.frames import ProtocolError

_MAX_HEADER_BYTES = 2**20
_MAX_CACHED_BLOCKS = 64
_MAX_CACHED_BLOCK_BYTES = 512


def encode_block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a header block of literals without indexing, which shares no state with the server.

    https://www.rfc-editor.org/rfc/rfc7541#section-6.2.2. The first byte (#section-6.3) sets our table to size 0: that
    is required of us when a server allows a smaller table than the default.
    """
    return b"\x20" + encode_fields(fields)


def encode_fields(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return fields to append to a header block of `encode_block`."""
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in fields)


def _string(value: bytes) -> bytes:
    """Return a string literal (https://www.rfc-editor.org/rfc/rfc7541#section-5.2) of up to 16 KiB."""
    size = len(value)
    if size < 127:
        return bytes([size]) + value
    return bytes([127, (size - 127) & 0x7F | 0x80, (size - 127) >> 7]) + value


class HeaderDecoder:
    """Assembles and decodes header blocks.

    It must see all blocks of a connection, also those of calls that are done, because they share one table of names.
    """

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=_MAX_HEADER_BYTES)
        self._stream = self._flags = 0
        self._block = bytearray()
        self._cache: dict[bytes, dict[bytes, bytes]] = {}
        """Decoded blocks since the last change of the table. Servers send the same blocks for each call."""
        self.open = False
        """True while a header block is incomplete. Until its end, the server may send CONTINUATION frames only."""

    def begin(self, flags: int, stream: int, content: bytes) -> dict[bytes, bytes] | None:
        """Return the fields of a HEADERS frame, None if a CONTINUATION follows. Raises `ProtocolError`."""
        self._stream, self._flags = stream, flags
        self._block[:] = frames.strip_padding(content, flags)
        return self._read(flags)

    def continue_block(self, flags: int, stream: int, content: bytes) -> tuple[int, dict[bytes, bytes] | None]:
        """Return the flags of the HEADERS frame before this CONTINUATION, and the fields, None if another follows.

        Raises `ProtocolError`.
        """
        if not self.open or self._stream != stream:
            raise ProtocolError("a CONTINUATION frame without a header block")
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
        """Return the latest entry of the table, and its number of entries and size. A change replaces one of these."""
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
