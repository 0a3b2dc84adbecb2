"""Limits of JSON that are checked without parsing it: millions of values would cost seconds and gigabytes.

Each value but the first follows a comma or an opening bracket, so counting these outside of strings counts the values.
All functions take time in proportion to the bytes, and hold the interpreter for a millisecond at a time.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic_core import to_json

from gateway.errors import RequestTooLarge

MAX_NUMBER_DIGITS = 512
"""Most digits of a number. Parsing an integer takes time in proportion to the square of its digits."""

_SLICE = 256 * 1024
_UNCHECKED_BYTES = 4096
"""JSON of up to so many bytes is not checked."""


@dataclass(frozen=True, slots=True)
class JSONLimits:
    """Most values in the JSON of one request, with nested values and those of unknown fields.

    `max_containers` limits lists and objects, which are among the `values` and cost ten times as much as a number.
    """

    values: int
    max_containers: int = 100_000


def _delimiter_table() -> bytes:
    """Return a table that keeps commas, maps brackets to `[` and digits to `0`, and blanks the rest."""
    table = bytearray(b" " * 256)
    for shown, those in ((b",", b","), (b"[", b"[{"), (b"0", b"0123456789")):
        for byte in those:
            table[byte] = shown[0]
    return bytes(table)


_DELIMITERS_ONLY = _delimiter_table()
_TOO_LONG = b"0" * (MAX_NUMBER_DIGITS + 1)


def count_delimiters(data: bytes | bytearray) -> int:
    """Return the number of commas and opening brackets, in strings too. There is at most one value more."""
    return len(data) - len(data.translate(None, b",[{"))


def check_json(data: bytes | bytearray, bounds: JSONLimits, *, param: str | None = None) -> None:
    """Raise `RequestTooLarge` if `data`, JSON in UTF-8, exceeds the limits. `param` is the field that holds it.

    In invalid JSON, the part before the error is counted correctly. A parser reads no more than that.
    """
    if len(data) > _UNCHECKED_BYTES and not _within_limits(_slices(data), bounds):
        _count(outside_strings(data), bounds, param)


def check_json_texts(texts: Iterable[str], bounds: JSONLimits, *, param: str) -> None:
    """Raise `RequestTooLarge` if `texts`, JSON in strings of the field `param`, together exceed the limits."""
    found = [text for text in texts if text]
    if sum(map(len, found)) > _UNCHECKED_BYTES:
        data = "\n".join(found).encode()
        if not _within_limits(_slices(data), bounds):
            _count((piece for text in found for piece in outside_strings(text.encode())), bounds, param)


def check_text_length(characters: int, most: int, *, param: str) -> None:
    """Raise `RequestTooLarge` if the texts of the field `param` have more than `most` characters."""
    if characters > most:
        raise RequestTooLarge(f"'{param}' holds more text than a request may here, {most} characters.", param=param)


def check_json_size(value: object, most: int, *, param: str) -> None:
    """Raise `RequestTooLarge` if `value` has more than `most` bytes as JSON, which is how the model receives it."""
    size = len(value) if isinstance(value, str) else len(to_json(value, inf_nan_mode="constants"))
    if size > most:
        raise RequestTooLarge(f"'{param}' is larger than it may be here, {most} bytes of JSON.", param=param)


def outside_strings(data: bytes | bytearray) -> Iterator[bytes]:
    """Yield the JSON without its strings, slice by slice."""
    view, carried, inside = memoryview(data), b"", False
    for at in range(0, len(view), _SLICE):
        piece = carried + bytes(view[at : at + _SLICE])
        carried = b""
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2 and at + _SLICE < len(view):
            piece, carried = piece[:-1], b"\\"  # the character that it escapes is in the next slice
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        yield b"".join(parts[inside::2])
        inside ^= len(parts) % 2 == 0


def _slices(data: bytes | bytearray) -> Iterator[bytes]:
    view = memoryview(data)
    return (bytes(view[at : at + _SLICE]) for at in range(0, len(view), _SLICE))


def _within_limits(pieces: Iterator[bytes], bounds: JSONLimits) -> bool:
    """Return whether pieces are within the limits even if none of it is in strings."""
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
