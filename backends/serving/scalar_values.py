"""Parsers for single values of requests, which may be JSON values or strings.

NVIDIA's sample clients write numbers as strings, and some Triton clients can send only integers as numbers in request
parameters.
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
    """Return an integer from `low` to `high`, given as such or in decimal digits.

    Raises `InvalidValue`, naming `name`.
    """
    if isinstance(value, str) and _matches(_INTEGER, value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidValue(f"This must be an integer{_string_hint(value)}.", name)
    if not low <= value <= high:
        raise InvalidValue(f"This must be from {low} to {high}.", name)
    return value


def parse_number(name: str, value: Any, low: float, high: float) -> float:
    """Return a finite number from `low` to `high`, given as such or in decimal digits.

    Raises `InvalidValue`, naming `name`.
    """
    is_number = _matches(_DECIMAL, value) if isinstance(value, str) else isinstance(value, int | float)
    if not is_number or isinstance(value, bool):
        raise InvalidValue(f"This must be a number{_string_hint(value)}.", name)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidValue("This must be a finite number.", name)
    if not low <= number <= high:
        bounds = f"at least {low:g}" + (f" and at most {high:g}" if high < math.inf else "")
        raise InvalidValue(f"This must be {bounds}, not {number:g}.", name)
    return number


def parse_boolean(name: str, value: Any) -> bool:
    """Return a boolean, given as such or as "true" or "false" in any case. Raises `InvalidValue`, naming `name`."""
    if isinstance(value, str):
        value = _BOOLEANS.get(value.lower(), value)
    if not isinstance(value, bool):
        raise InvalidValue("This must be true or false.", name)
    return value


def _matches(pattern: re.Pattern[str], text: str) -> bool:
    return len(text) <= _MAX_CHARS and pattern.fullmatch(text) is not None


def _string_hint(value: Any) -> str:
    """Return the end of an error message about a string that may have been meant as a number."""
    return f" in decimal digits, not {value[:_MAX_CHARS]!r}" if isinstance(value, str) else ""
