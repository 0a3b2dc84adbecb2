"""What stands behind keywords, checked."""

import json
import math
from collections.abc import Iterable
from typing import Any

from backends.llm.structured_outputs.json_schema.document import LocatedSchema
from backends.llm.structured_outputs.json_schema.keywords import TYPES

MAX_COUNT = 2**31
"""More characters, items or properties than any answer has."""


def read_count(place: LocatedSchema, keyword: str) -> int | None:
    """Return a number of things, `2.0` as 2; None where there is none. Raises `ValueError`."""
    value = place.schema.get(keyword)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf or value % 1:
        raise place.error(keyword, "must be a whole number, 0 or more.")
    return min(int(value), MAX_COUNT)


def read_number(place: LocatedSchema, keyword: str) -> int | float | None:
    """Return a finite number; None where there is none. Raises `ValueError`."""
    value = place.schema.get(keyword)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise place.error(keyword, "must be a number.")
    return value


def read_list(place: LocatedSchema, keyword: str) -> list[Any]:
    """Return a list that is not empty. Raises `ValueError`."""
    value = place.schema[keyword]
    if not isinstance(value, list) or not value:
        raise place.error(keyword, "must be a list with at least one entry.")
    return value


def read_object(place: LocatedSchema, keyword: str) -> dict[str, Any]:
    """Return an object, an empty one where there is none. Raises `ValueError`."""
    value = place.schema.get(keyword, {})
    if not isinstance(value, dict):
        raise place.error(keyword, "must be an object.")
    return value


def read_names(place: LocatedSchema, keyword: str) -> list[str]:
    """Return names, none of them twice; none where there are none. Raises `ValueError`."""
    value = place.schema.get(keyword, [])
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise place.error(keyword, "must be a list of names.")
    return list(dict.fromkeys(value))


def read_types(place: LocatedSchema) -> list[str] | None:
    """Return the types of a schema; None where it has no `type`. Raises `ValueError`."""
    value = place.schema.get("type")
    if value is None:
        return None
    given = value if isinstance(value, list) else [value]
    for one in given:
        if not isinstance(one, str) or one not in (*TYPES, "integer"):
            raise place.error("type", f"is {json.dumps(one)[:64]}: there is no such type.")
    if not given:
        raise place.error("type", "must name a type.")
    return list(dict.fromkeys(one for one in given if one != "integer" or "number" not in given))


def sum_is_at_most(counts: Iterable[int], most: int) -> bool:
    """Return whether the sum is `most` or less, looking at no more than that takes: there may be thousands of counts,
    of thousands of digits each."""
    total = 0
    for count in counts:
        total += count
        if total > most:
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
    """Return a text that equal JSON values share: 1 and 1.0 are equal."""
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
    """Return the value of a canonical text."""
    return json.loads(text)
