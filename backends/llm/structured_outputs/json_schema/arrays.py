"""Arrays: write `items`, `prefixItems` and the other array keywords as llguidance needs them.

`uniqueItems` and `contains` have no equivalent there, so they become arrays that are written out, or are refused.
"""

from collections.abc import Callable
from itertools import chain, combinations, permutations
from math import comb, perm
from typing import Any

from backends.llm.structured_outputs.json_schema import keyword_values
from backends.llm.structured_outputs.json_schema.document import LocatedSchema
from backends.llm.structured_outputs.json_schema.keywords import CONSTRAINING, IN_PLACE_APPLICATORS, TYPES
from backends.llm.structured_outputs.json_schema.value_bounds import ValueBounds

_MAX_SETS = 128
"""Most arrays of distinct values that are written out: enough for all orders of 4 values, or all sets of 7."""


def write_array(
    located: LocatedSchema,
    normalize: Callable[[LocatedSchema], Any],
    bounds_of: Callable[[LocatedSchema], ValueBounds],
    out: dict[str, Any],
) -> None:
    """Write the array keywords of a schema into `out`; further alternatives go to its `anyOf`. Raises `ValueError`."""
    schema = located.schema
    prefix, other_items = _items(located)
    minimum, maximum = (
        keyword_values.read_count(located, "minItems") or 0,
        keyword_values.read_count(located, "maxItems"),
    )
    if "contains" in schema:
        minimum, maximum = _contains_bounds(located, minimum, maximum)
    if prefix:
        out["prefixItems"] = [normalize(item) for item in prefix]
    if other_items is not None and (items := normalize(other_items)) is not True:
        out["items"] = items
    if minimum:
        out["minItems"] = minimum
    if maximum is not None and maximum < keyword_values.MAX_COUNT:
        out["maxItems"] = maximum
    if schema.get("uniqueItems") not in (None, False):
        if schema["uniqueItems"] is not True:
            raise located.error("uniqueItems", "must be true or false.")
        _write_unique_items(located, prefix, other_items, (minimum, maximum), bounds_of, out)


def _items(located: LocatedSchema) -> tuple[list[LocatedSchema], LocatedSchema | None]:
    """Return the schemas of the first items, and the schema of the others, or None if there is none."""
    schema = located.schema
    first = "items" if isinstance(schema.get("items"), list) else "prefixItems"
    others = "additionalItems" if first == "items" else "items"
    values = schema.get(first, [])
    if not isinstance(values, list):
        raise located.error(first, "must be a list of schemas.")
    prefix = [located.child(first, number) for number in range(len(values))]
    if others not in schema and schema.get("unevaluatedItems", True) is not True:
        if IN_PLACE_APPLICATORS & schema.keys():
            raise located.error("unevaluatedItems", "cannot be enforced together with other schemas of the same array.")
        others = "unevaluatedItems"
    return prefix, located.child(others) if others in schema else None


def _contains_bounds(located: LocatedSchema, minimum: int, maximum: int | None) -> tuple[int, int | None]:
    """Return the bounds of the array's length with `contains`. Raises `ValueError` unless its schema matches every item
    or no item needs to match.
    """
    min_contains, max_contains = (
        keyword_values.read_count(located, "minContains"),
        keyword_values.read_count(located, "maxContains"),
    )
    min_contains = 1 if min_contains is None else min_contains
    contains_schema = located.schema["contains"]
    if contains_schema is True or (isinstance(contains_schema, dict) and not CONSTRAINING & contains_schema.keys()):
        return max(
            minimum, min_contains
        ), max_contains if maximum is None else maximum if max_contains is None else min(maximum, max_contains)
    if min_contains or max_contains is not None:
        raise located.error("contains", "cannot be enforced; 'items' and 'prefixItems' can.")
    return minimum, maximum


def _write_unique_items(
    located: LocatedSchema,
    prefix: list[LocatedSchema],
    other_items: LocatedSchema | None,
    bounds: tuple[int, int | None],
    bounds_of: Callable[[LocatedSchema], ValueBounds],
    out: dict[str, Any],
) -> None:
    minimum, maximum = bounds
    if out.get("items") is False:
        maximum = len(prefix) if maximum is None else min(maximum, len(prefix))
    if maximum is not None and maximum <= 1:
        return
    if prefix:
        value_sets = [bounds_of(item).values for item in prefix]
        finite_sets = [one for one in value_sets if one is not None]
        are_distinct = len(finite_sets) == len(value_sets) and sum(map(len, finite_sets)) == len(
            frozenset[str]().union(*finite_sets)
        )
        if maximum is None or maximum > len(prefix) or not are_distinct:
            raise located.error("uniqueItems", "cannot be enforced together with 'prefixItems' that could be equal.")
        return
    values = bounds_of(other_items).values if other_items is not None else None
    if values is None:
        raise located.error(
            "uniqueItems", "can be enforced only for items of listed values ('enum', 'const', boolean)."
        )  # fmt: skip
    items = _in_order(other_items, values)
    maximum = len(items) if maximum is None else min(maximum, len(items))
    lengths = range(minimum, maximum + 1)
    if not keyword_values.sum_is_at_most((comb(len(items), length) for length in lengths), _MAX_SETS):
        raise located.error("uniqueItems", f"has more than {_MAX_SETS} sets of items: 7 values can be enforced.")
    fits_all_orders = keyword_values.sum_is_at_most((perm(len(items), length) for length in lengths), _MAX_SETS)
    sets = chain.from_iterable((permutations if fits_all_orders else combinations)(items, length) for length in lengths)
    arrays = [
        {
            "type": "array",
            "prefixItems": [{"const": item} for item in one],
            "items": False,
            "minItems": len(one),
            "maxItems": len(one),
        }
        for one in sets
    ]
    others = [one for one in keyword_values.read_types(located) or TYPES if one != "array"]
    out["anyOf"] = [*arrays, *([{"type": others}] if others else [])]
    for keyword in ("minItems", "maxItems"):
        out.pop(keyword, None)


def _in_order(located: LocatedSchema | None, values: frozenset[str]) -> list[Any]:
    """Return the values in the order of the schema's `enum`, if it has one."""
    enum = located.schema.get("enum") if located is not None and isinstance(located.schema, dict) else None
    texts = [keyword_values.canonical_json(value) for value in enum] if isinstance(enum, list) else sorted(values)
    return [keyword_values.parse_canonical(text) for text in dict.fromkeys(texts) if text in values]
