"""How much a piece of JSON holds, counted without parsing it: to build millions of values takes seconds and gigabytes.

Each value but the first stands behind a comma or an opening bracket, so that counting these outside of strings counts
values. Everything here takes a time that grows with the bytes alone, and holds the interpreter for a millisecond at a
time.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic_core import to_json

from gateway.errors import RequestTooLarge

MAX_NUMBER_DIGITS = 512
"""Digits. No computer's number has as many, and to read an integer takes a time that grows with their square."""

_SLICE = 256 * 1024
_UNCHECKED_BYTES = 4096
"""Bytes that are not worth counting."""


@dataclass(frozen=True, slots=True)
class JSONLimits:
    """How much the JSON of one request may hold, nested values and those of fields that nobody knows included.

    `containers`, lists and objects, are among the `values`; each takes ten times what a number does.
    """

    values: int
    max_containers: int = 100_000


def _delimiter_table() -> bytes:
    """The table that leaves commas, makes every bracket `[` and every digit `0`, and blanks the rest."""
    table = bytearray(b" " * 256)
    for shown, those in ((b",", b","), (b"[", b"[{"), (b"0", b"0123456789")):
        for byte in those:
            table[byte] = shown[0]
    return bytes(table)


_DELIMITERS_ONLY = _delimiter_table()
_TOO_LONG = b"0" * (MAX_NUMBER_DIGITS + 1)


def count_delimiters(data: bytes | bytearray) -> int:
    """Return how many commas and opening brackets there are, within strings too: there are at most one more values."""
    return len(data) - len(data.translate(None, b",[{"))


def check_json(data: bytes | bytearray, bounds: JSONLimits, *, param: str | None = None) -> None:
    """Raise `RequestTooLarge` where `data`, JSON in UTF-8, holds more than it may. `param` is the field it stands in.

    Of what is no valid JSON, the part before the fault is counted rightly, which is what a parser would read of it.
    """
    if len(data) > _UNCHECKED_BYTES and not _within_limits(_slices(data), bounds):
        _count(outside_strings(data), bounds, param)


def check_json_texts(texts: Iterable[str], bounds: JSONLimits, *, param: str) -> None:
    """Do the same for texts of the field `param` that are JSON, all of them together."""
    found = [text for text in texts if text]
    if sum(map(len, found)) > _UNCHECKED_BYTES:
        data = "\n".join(found).encode()
        if not _within_limits(_slices(data), bounds):
            _count((piece for text in found for piece in outside_strings(text.encode())), bounds, param)


def check_text_length(characters: int, most: int, *, param: str) -> None:
    """Raise `RequestTooLarge` where the texts of the field `param` have more than `most` characters."""
    if characters > most:
        raise RequestTooLarge(f"'{param}' holds more text than a request may here, {most} characters.", param=param)


def check_json_size(value: object, most: int, *, param: str) -> None:
    """Do the same for the JSON that `value` is, in bytes: it is written down once more for the model."""
    size = len(value) if isinstance(value, str) else len(to_json(value, inf_nan_mode="constants"))
    if size > most:
        raise RequestTooLarge(f"'{param}' is larger than it may be here, {most} bytes of JSON.", param=param)


def outside_strings(data: bytes | bytearray) -> Iterator[bytes]:
    """Yield what stands outside of the strings of JSON, slice by slice."""
    view, carried, inside = memoryview(data), b"", False
    for at in range(0, len(view), _SLICE):
        piece = carried + bytes(view[at : at + _SLICE])
        carried = b""
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2 and at + _SLICE < len(view):
            piece, carried = piece[:-1], b"\\"  # what it escapes is in the next slice
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        yield b"".join(parts[inside::2])
        inside ^= len(parts) % 2 == 0


def _slices(data: bytes | bytearray) -> Iterator[bytes]:
    view = memoryview(data)
    return (bytes(view[at : at + _SLICE]) for at in range(0, len(view), _SLICE))


def _within_limits(pieces: Iterator[bytes], bounds: JSONLimits) -> bool:
    """Whether pieces are within their bounds even if nothing of them stood in strings."""
    try:
        _count(pieces, bounds, None)
    except RequestTooLarge:
        return False
    return True


def _count(pieces: Iterator[bytes], bounds: JSONLimits, param: str | None) -> None:
    values, containers = 1, 0
    where = f"'{param}'" if param else "The body"
    for piece in pieces:
        shown = piece.translate(_DELIMITERS_ONLY)
        opened = shown.count(b"[")
        containers += opened
        values += opened + shown.count(b",")
        if values > bounds.values:
            raise RequestTooLarge(
                f"{where} holds more JSON values than a request may here, {bounds.values}.", param=param
            )
        if containers > bounds.max_containers:
            raise RequestTooLarge(
                f"{where} holds more JSON lists and objects than a request may here, {bounds.max_containers}.",
                param=param,
            )
        if _TOO_LONG in shown:
            raise RequestTooLarge(f"{where} holds a number of more than {MAX_NUMBER_DIGITS} digits.", param=param)
