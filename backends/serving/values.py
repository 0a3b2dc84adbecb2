"""Single values of requests, checked: as JSON has them, or written as strings.

NVIDIA's sample clients write numbers as strings, and some clients of Triton can send no other numbers than integers as
request parameters.
"""

import math
import re
from typing import Any

from backends.serving.errors import InvalidValue

_LONGEST = 64
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WORDS = {"true": True, "false": False}


def integer(name: str, value: Any, low: int, high: int) -> int:
    """A whole number from `low` to `high`, or its decimal digits in a string. Raises `InvalidValue`, naming `name`."""
    if isinstance(value, str) and _is(_INTEGER, value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidValue(f"This must be an integer{_digits(value)}.", name)
    if not low <= value <= high:
        raise InvalidValue(f"This must be from {low} to {high}.", name)
    return value


def number(name: str, value: Any, low: float, high: float) -> float:
    """A finite number from `low` to `high`, or its decimal digits in a string. Raises `InvalidValue`, naming `name`."""
    is_one = _is(_DECIMAL, value) if isinstance(value, str) else isinstance(value, int | float)
    if not is_one or isinstance(value, bool):
        raise InvalidValue(f"This must be a number{_digits(value)}.", name)
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


def flag(name: str, value: Any) -> bool:
    """True or false, or these words in a string. Raises `InvalidValue`, naming `name`."""
    if isinstance(value, str):
        value = _WORDS.get(value.lower(), value)
    if not isinstance(value, bool):
        raise InvalidValue("This must be true or false.", name)
    return value


def _is(pattern: re.Pattern[str], text: str) -> bool:
    return len(text) <= _LONGEST and pattern.fullmatch(text) is not None


def _digits(value: Any) -> str:
    """How a sentence goes on about a string that may have been meant for a number."""
    return f" in decimal digits, not {value[:_LONGEST]!r}" if isinstance(value, str) else ""
