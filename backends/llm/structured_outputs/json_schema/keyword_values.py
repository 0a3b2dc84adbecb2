"""Values of keywords, read and checked; and the canonical form in which JSON values are compared."""

import json
import math
from collections.abc import Iterable
from typing import Any

from backends.llm.structured_outputs.json_schema.document import LocatedSchema
from backends.llm.structured_outputs.json_schema.keywords import TYPES

MAX_COUNT = 2**31
"""A number of characters, items or properties that no answer reaches."""


def read_count(located: LocatedSchema, keyword: str) -> int | None:
    """Return a count, `2.0` as 2 and at most `MAX_COUNT`; None if the keyword is absent. Raises `ValueError`."""
    value = located.schema.get(keyword)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf or value % 1:
        raise located.error(keyword, "must be a whole number, 0 or more.")
    return min(int(value), MAX_COUNT)


def read_number(located: LocatedSchema, keyword: str) -> int | float | None:
    """Return a number that is not NaN; None if the keyword is absent. Raises `ValueError`."""
    value = located.schema.get(keyword)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise located.error(keyword, "must be a number.")
    return value


def read_list(located: LocatedSchema, keyword: str) -> list[Any]:
    """Return a list that is not empty. Raises `ValueError`; the keyword must be present."""
    value = located.schema[keyword]
    if not isinstance(value, list) or not value:
        raise located.error(keyword, "must be a list with at least one entry.")
    return value


def read_object(located: LocatedSchema, keyword: str) -> dict[str, Any]:
    """Return an object; an empty one if the keyword is absent. Raises `ValueError`."""
    value = located.schema.get(keyword, {})
    if not isinstance(value, dict):
        raise located.error(keyword, "must be an object.")
    return value


def read_names(located: LocatedSchema, keyword: str) -> list[str]:
    """Return a list of names without duplicates; an empty one if the keyword is absent. Raises `ValueError`."""
    value = located.schema.get(keyword, [])
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise located.error(keyword, "must be a list of names.")
    return list(dict.fromkeys(value))


def read_types(located: LocatedSchema) -> list[str] | None:
    """Return the types of a schema without duplicates; None if it has no `type`. Raises `ValueError`."""
    value = located.schema.get("type")
    if value is None:
        return None
    given = value if isinstance(value, list) else [value]
    for one in given:
        if not isinstance(one, str) or one not in (*TYPES, "integer"):
            raise located.error("type", f"is {json.dumps(one)[:64]}: there is no such type.")
    if not given:
        raise located.error("type", "must name a type.")
    return list(dict.fromkeys(one for one in given if one != "integer" or "number" not in given))


def sum_is_at_most(counts: Iterable[int], maximum: int) -> bool:
    """Return whether the sum is `maximum` or less. Stops at the first count that exceeds it, because there may be
    thousands of counts, with thousands of digits each.
    """
    total = 0
    for count in counts:
        total += count
        if total > maximum:
            return False
    return True


def type_of(value: Any) -> str:
    """Return the type of a JSON value, `number` for all numbers."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def canonical_json(value: Any) -> str:
    """Return the canonical form of a JSON value: equal values, such as 1 and 1.0, have the same text."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value


def parse_canonical(text: str) -> Any:
    """Return the value of a text that `canonical_json` returned."""
    return json.loads(text)
