"""Single values of requests, checked: as JSON has them, or written as strings.

NVIDIA's sample clients write numbers as strings, and some clients of Triton can send no other numbers than integers as
request parameters.
"""

import math
import re
from typing import Any

from backends.serving.errors import InvalidValue

_MAX_CHARS = 64
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BOOLEANS = {"true": True, "false": False}


def parse_integer(name: str, value: Any, low: int, high: int) -> int:
    """A whole number from `low` to `high`, or its decimal digits in a string. Raises `InvalidValue`, naming `name`."""
    if isinstance(value, str) and _matches(_INTEGER, value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidValue(f"This must be an integer{_string_hint(value)}.", name)
    if not low <= value <= high:
        raise InvalidValue(f"This must be from {low} to {high}.", name)
    return value


def parse_number(name: str, value: Any, low: float, high: float) -> float:
    """A finite number from `low` to `high`, or its decimal digits in a string. Raises `InvalidValue`, naming `name`."""
    is_one = _matches(_DECIMAL, value) if isinstance(value, str) else isinstance(value, int | float)
    if not is_one or isinstance(value, bool):
        raise InvalidValue(f"This must be a number{_string_hint(value)}.", name)
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise InvalidValue("This must be a finite number.", name)
    if not low <= found <= high:
        bounds = f"at least {low:g}" + (f" and at most {high:g}" if high < math.inf else "")
        raise InvalidValue(f"This must be {bounds}, not {found:g}.", name)
    return found


def parse_boolean(name: str, value: Any) -> bool:
    """True or false, or these words in a string. Raises `InvalidValue`, naming `name`."""
    if isinstance(value, str):
        value = _BOOLEANS.get(value.lower(), value)
    if not isinstance(value, bool):
        raise InvalidValue("This must be true or false.", name)
    return value


def _matches(pattern: re.Pattern[str], text: str) -> bool:
    return len(text) <= _MAX_CHARS and pattern.fullmatch(text) is not None


def _string_hint(value: Any) -> str:
    """How a sentence goes on about a string that may have been meant for a number."""
    return f" in decimal digits, not {value[:_MAX_CHARS]!r}" if isinstance(value, str) else ""
