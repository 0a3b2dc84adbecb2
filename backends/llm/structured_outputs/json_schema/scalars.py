"""Constants, numbers and strings: write their keywords as llguidance needs them."""

import math
import re
from typing import Any

from backends.llm.structured_outputs.json_schema import keyword_values
from backends.llm.structured_outputs.json_schema.document import LocatedSchema

_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)  # fmt: skip
"""Formats that llguidance enforces. All others are annotations, as the standard has them."""

_NO_LEAP_DAY = (
    r"(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-"
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_DIVISIBLE_BY_FOUR = "(?:0[48]|[2468][048]|[13579][26])"  # of the years of a century, or of the centuries
_DATE = f"(?:{_NO_LEAP_DAY}|(?:[0-9]{{2}}{_DIVISIBLE_BY_FOUR}|{_DIVISIBLE_BY_FOUR}00)-02-29)"
_TIME = (
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)  # fmt: skip
_FORMAT_PATTERNS = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}[Tt]{_TIME}$",
    "duration": "^(?:[PT]|[0-9]{1,6}[YMWDHS])*$",
}
"""Patterns added to some formats. llguidance knows no leap years, and accepts years (0000), seconds (:60) and numbers
of any length that no client's date type can hold."""

# llguidance computes with 64 bits: the largest float below 2**63, and for fractions the largest without gaps.
_MAX_INTEGER = 2**63 - 1024
_MAX_FRACTION = 2**53 - 1
# Beyond this, llguidance needs both bounds.
_MAX_ONE_SIDED_BOUND = 10**18

_LOOK_AROUND = re.compile(r"(?:^|[^\\])(?:\\\\)*(\(\?(?:=|!|<=|<!))")
# Look-around expressions of well-known libraries, and replacements that match the same texts or the usual ones of them.
_LOOK_AROUND_REPLACEMENTS = (
    # zod's e-mail: no dot at the beginning, none at the end, nor two in a row
    (
        r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$",
        r"^(?:[A-Za-z0-9_'+\-]+\.)*[A-Za-z0-9_'+\-]*[A-Za-z0-9_+\-]@(?:[A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$",
    ),
    (r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$", r"^[+-]?(?:\d+\.?\d*|\.\d+)$"),  # pydantic's Decimal
)
_DECIMAL = re.compile(
    r"\^\(\?!\^\[-\+\.\]\*\$\)\[\+-\]\?0\*\(\?:\\d\{0,(\d{1,4})\}\|\(\?=\[\\d\.\]\{1,\d{1,4}\}0\*\$\)"
    r"\\d(?:\{0,\d{1,4}\}|\*)\\\.\\d(?:\{0,(\d{1,4})\}|\*)0\*\$\)"
)
"""pydantic's Decimal with `max_digits`, and with `decimal_places`."""
_DECIMAL_PLACES = re.compile(r"\^\(\?!\^\[-\+\.\]\*\$\)\[\+-\]\?0\*\\d\*\\\.\?\\d\{0,(\d{1,4})\}0\*\$")


def write_constants(located: LocatedSchema, out: dict[str, Any]) -> None:
    """Write `const` and `enum` into `out`. Raises `ValueError`."""
    if "const" in located.schema:
        if not _is_exact(located.schema["const"]):
            raise located.error("const", "contains a number that 64 bits cannot represent exactly.")
        out["const"] = located.schema["const"]
    if "enum" in located.schema:
        listed = keyword_values.read_list(located, "enum")
        out["enum"] = [value for value in listed if _is_exact(value)]
        if not out["enum"]:
            raise located.error("enum", "contains only numbers that 64 bits cannot represent exactly.")


def _is_exact(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(map(_is_exact, value.values() if isinstance(value, dict) else value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    return abs(value) <= _MAX_INTEGER and value == float(value)


def write_number(located: LocatedSchema, types: list[str] | None, out: dict[str, Any]) -> None:
    """Write the bounds of numbers into `out`, moved inward to what 64 bits can hold. Raises `ValueError`."""
    minimum, exclusive_minimum = (
        keyword_values.read_number(located, "minimum"),
        _exclusive(located, "exclusiveMinimum", "minimum"),
    )
    maximum, exclusive_maximum = (
        keyword_values.read_number(located, "maximum"),
        _exclusive(located, "exclusiveMaximum", "maximum"),
    )
    if types is not None and "integer" in types:
        lows = [math.ceil(one) for one in (minimum,) if one is not None and one > -math.inf]
        lows += [
            math.floor(one) + 1
            for one in (exclusive_minimum,)
            if one is not None and one > -math.inf and one < math.inf
        ]
        highs = [math.floor(one) for one in (maximum,) if one is not None and one < math.inf]
        highs += [math.ceil(one) - 1 for one in (exclusive_maximum,) if one is not None and -math.inf < one < math.inf]
        _integers(located, max(lows, default=None), min(highs, default=None), out)
    else:
        for keyword, bound in (("minimum", minimum), ("exclusiveMinimum", exclusive_minimum)):
            _fraction(located, keyword, bound, 1, out)
        for keyword, bound in (("maximum", maximum), ("exclusiveMaximum", exclusive_maximum)):
            _fraction(located, keyword, bound, -1, out)
    step = keyword_values.read_number(located, "multipleOf")
    if step is not None:
        if not 0 < step < math.inf:
            raise located.error("multipleOf", "must be a number above 0.")
        out["multipleOf"] = step


def _exclusive(located: LocatedSchema, keyword: str, bound_keyword: str) -> int | float | None:
    """Return an exclusive bound. In draft 4 the keyword is a boolean that makes `bound_keyword` exclusive."""
    value = located.schema.get(keyword)
    if isinstance(value, bool):
        return keyword_values.read_number(located, bound_keyword) if value else None
    return keyword_values.read_number(located, keyword)


def _integers(located: LocatedSchema, low: int | None, high: int | None, out: dict[str, Any]) -> None:
    if (low is not None and low > _MAX_INTEGER) or (high is not None and high < -_MAX_INTEGER):
        raise located.error("minimum" if low is not None and low > 0 else "maximum", "allows no 64-bit number.")
    if low is not None:
        low = max(low, -_MAX_INTEGER)
        out["minimum"] = low if low <= float(low) else int(math.nextafter(float(low), math.inf))
        high = _MAX_INTEGER if high is None and low >= _MAX_ONE_SIDED_BOUND else high
    if high is not None:
        high = min(high, _MAX_INTEGER)
        out["maximum"] = high if float(high) <= high else int(math.nextafter(float(high), -math.inf))
        if low is None and high <= -_MAX_ONE_SIDED_BOUND:
            out["minimum"] = -_MAX_INTEGER


def _fraction(located: LocatedSchema, keyword: str, bound: int | float | None, sign: int, out: dict[str, Any]) -> None:
    """Write a lower bound, or with `sign` -1 an upper one."""
    if bound is None or bound * sign == -math.inf:
        return
    if bound * sign > _MAX_FRACTION:
        raise located.error(keyword, "is beyond 2**53, where numbers with fractions have gaps.")
    if bound * sign < -_MAX_FRACTION:
        keyword, bound = ("minimum", -_MAX_FRACTION) if sign > 0 else ("maximum", _MAX_FRACTION)
    out[keyword] = bound


def write_string(located: LocatedSchema, out: dict[str, Any]) -> list[Any]:
    """Write the string keywords of a schema into `out`, and return further schemas that must match too.

    Raises `ValueError`.
    """
    minimum, maximum = keyword_values.read_count(located, "minLength"), keyword_values.read_count(located, "maxLength")
    if minimum:
        out["minLength"] = minimum
    if maximum is not None and maximum < keyword_values.MAX_COUNT:
        out["maxLength"] = maximum
    if located.schema.get("pattern") is not None:
        out["pattern"] = supported_pattern(located, "pattern", located.schema["pattern"])
    name = located.schema.get("format")
    if isinstance(name, str) and name in _FORMATS:
        out["format"] = name
        # The caller's own constants stay as they are.
        if name in _FORMAT_PATTERNS and not {"const", "enum"} & located.schema.keys():
            if "pattern" in out:
                return [{"pattern": _FORMAT_PATTERNS[name]}]
            out["pattern"] = _FORMAT_PATTERNS[name]
    return []


def supported_pattern(located: LocatedSchema, keyword: str, text: Any) -> str:
    """Return a regular expression without look-arounds, or an equivalent of a well-known one. Raises `ValueError`."""
    if not isinstance(text, str):
        raise located.error(keyword, "must be a regular expression, a string.")
    for theirs, ours in _LOOK_AROUND_REPLACEMENTS:
        if text == theirs:
            return ours
    if match := _DECIMAL.fullmatch(text):
        whole, places = int(match[1]), int(match[2] or 0)
        inner = rf"\d{{1,{whole}}}(?:\.\d{{0,{places}}})?" if whole else r"0"
        return rf"^[+-]?(?:{inner}" + (rf"|\.\d{{1,{places}}})$" if places else ")$")
    if match := _DECIMAL_PLACES.fullmatch(text):
        return rf"^[+-]?\d+(?:\.\d{{0,{int(match[1])}}})?$"
    if _LOOK_AROUND.search(text):
        raise located.error(keyword, "has a look-around, such as '(?=', which cannot be enforced.")
    return text
