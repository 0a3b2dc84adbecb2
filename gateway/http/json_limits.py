"""Limits of JSON that are checked before parsing: parsing millions of values would take seconds and gigabytes.

Each value but the first follows a comma or an opening bracket, so the number of these outside strings is the number of
values. All functions take linear time, and hold the interpreter lock for about a millisecond at a time.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic_core import to_json

from gateway.errors import RequestTooLarge

MAX_NUMBER_DIGITS = 512
"""Most digits of a number. Parsing an integer takes time in proportion to the square of its digits."""

_SLICE = 256 * 1024
_UNCHECKED_BYTES = 4096
"""JSON of at most this many bytes is not checked."""


@dataclass(frozen=True, slots=True)
class JSONLimits:
    """Most values in the JSON of one request, including nested values and those of unknown fields.

    `max_containers` limits lists and objects, which are among the values and cost ten times as much as a number.
    """

    max_values: int
    max_containers: int = 100_000


def _delimiter_table() -> bytes:
    """Return a table that keeps commas, maps brackets to `[` and digits to `0`, and blanks the rest."""
    table = bytearray(b" " * 256)
    for replacement, characters in ((b",", b","), (b"[", b"[{"), (b"0", b"0123456789")):
        for byte in characters:
            table[byte] = replacement[0]
    return bytes(table)


_DELIMITERS_ONLY = _delimiter_table()
_TOO_LONG = b"0" * (MAX_NUMBER_DIGITS + 1)


def count_delimiters(data: bytes | bytearray) -> int:
    """Return the number of commas and opening brackets, including those in strings. Adding 1 bounds the values."""
    return len(data) - len(data.translate(None, b",[{"))


def check_json(data: bytes | bytearray, limits: JSONLimits, *, param: str | None = None) -> None:
    """Raise `RequestTooLarge` if `data`, JSON in UTF-8, exceeds the limits. `param` is the field that holds it.

    In invalid JSON, the part before the error is counted correctly; a parser does not read further.
    """
    if len(data) > _UNCHECKED_BYTES and not _within_limits(_slices(data), limits):
        _count(outside_strings(data), limits, param)


def check_json_texts(texts: Iterable[str], limits: JSONLimits, *, param: str) -> None:
    """Raise `RequestTooLarge` if `texts`, JSON in strings of the field `param`, together exceed the limits."""
    found = [text for text in texts if text]
    if sum(map(len, found)) > _UNCHECKED_BYTES:
        data = "\n".join(found).encode()
        if not _within_limits(_slices(data), limits):
            _count((piece for text in found for piece in outside_strings(text.encode())), limits, param)


def check_text_length(characters: int, limit: int, *, param: str) -> None:
    """Raise `RequestTooLarge` if the texts of the field `param` have more than `limit` characters."""
    if characters > limit:
        raise RequestTooLarge(f"'{param}' has more text than the limit of {limit} characters.", param=param)


def check_json_size(value: object, limit: int, *, param: str) -> None:
    """Raise `RequestTooLarge` if `value` has more than `limit` bytes as JSON, the form that the model receives."""
    size = len(value) if isinstance(value, str) else len(to_json(value, inf_nan_mode="constants"))
    if size > limit:
        raise RequestTooLarge(f"'{param}' is larger than the limit of {limit} bytes of JSON.", param=param)


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


def _within_limits(pieces: Iterator[bytes], limits: JSONLimits) -> bool:
    """Return whether the pieces are within the limits even if strings count as JSON."""
    try:
        _count(pieces, limits, None)
    except RequestTooLarge:
        return False
    return True


def _count(pieces: Iterator[bytes], limits: JSONLimits, param: str | None) -> None:
    values, containers = 1, 0
    subject = f"'{param}'" if param else "The body"
    for piece in pieces:
        delimiters = piece.translate(_DELIMITERS_ONLY)
        opened = delimiters.count(b"[")
        containers += opened
        values += opened + delimiters.count(b",")
        if values > limits.max_values:
            raise RequestTooLarge(f"{subject} has more JSON values than the limit of {limits.max_values}.", param=param)
        if containers > limits.max_containers:
            raise RequestTooLarge(
                f"{subject} has more JSON lists and objects than the limit of {limits.max_containers}.",
                param=param,
            )
        if _TOO_LONG in delimiters:
            raise RequestTooLarge(f"{subject} has a number of more than {MAX_NUMBER_DIGITS} digits.", param=param)
