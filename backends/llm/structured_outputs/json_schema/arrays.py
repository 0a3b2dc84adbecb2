"""Arrays."""

from collections.abc import Callable
from itertools import chain, combinations, permutations
from math import comb, perm
from typing import Any

from backends.llm.structured_outputs.json_schema import keyword_values
from backends.llm.structured_outputs.json_schema.document import LocatedSchema
from backends.llm.structured_outputs.json_schema.keywords import CONSTRAINING, IN_PLACE_APPLICATORS, TYPES
from backends.llm.structured_outputs.json_schema.value_bounds import ValueBounds

_MAX_SETS = 128
"""Arrays of different values that are written out: all orders of 4 values, all sets of 7."""


def write_array(
    place: LocatedSchema,
    normal: Callable[[LocatedSchema], Any],
    shape: Callable[[LocatedSchema], ValueBounds],
    out: dict[str, Any],
) -> None:
    """Write what is said of arrays into `out`. Raises `ValueError`."""
    schema = place.schema
    prefix, rest = _items(place)
    least, most = keyword_values.read_count(place, "minItems") or 0, keyword_values.read_count(place, "maxItems")
    if "contains" in schema:
        least, most = _contains_bounds(place, least, most)
    if prefix:
        out["prefixItems"] = [normal(item) for item in prefix]
    if rest is not None and (items := normal(rest)) is not True:
        out["items"] = items
    if least:
        out["minItems"] = least
    if most is not None and most < keyword_values.MAX_COUNT:
        out["maxItems"] = most
    if schema.get("uniqueItems") not in (None, False):
        if schema["uniqueItems"] is not True:
            raise place.error("uniqueItems", "must be true or false.")
        _write_unique_items(place, prefix, rest, (least, most), shape, out)


def _items(place: LocatedSchema) -> tuple[list[LocatedSchema], LocatedSchema | None]:
    """The schemas of the first items, and that of the others; None where nothing is said of them."""
    schema = place.schema
    first = "items" if isinstance(schema.get("items"), list) else "prefixItems"
    others = "additionalItems" if first == "items" else "items"
    listed = schema.get(first, [])
    if not isinstance(listed, list):
        raise place.error(first, "must be a list of schemas.")
    prefix = [place.child(first, number) for number in range(len(listed))]
    if others not in schema and schema.get("unevaluatedItems", True) is not True:
        if IN_PLACE_APPLICATORS & schema.keys():
            raise place.error("unevaluatedItems", "cannot be enforced beside other schemas of the same array.")
        others = "unevaluatedItems"
    return prefix, place.child(others) if others in schema else None


def _contains_bounds(place: LocatedSchema, least: int, most: int | None) -> tuple[int, int | None]:
    """`contains`, where every item counts or none has to."""
    some, many = keyword_values.read_count(place, "minContains"), keyword_values.read_count(place, "maxContains")
    some = 1 if some is None else some
    about = place.schema["contains"]
    if about is True or (isinstance(about, dict) and not CONSTRAINING & about.keys()):
        return max(least, some), many if most is None else most if many is None else min(most, many)
    if some or many is not None:
        raise place.error("contains", "cannot be enforced; 'items' and 'prefixItems' can.")
    return least, most


def _write_unique_items(
    place: LocatedSchema,
    prefix: list[LocatedSchema],
    rest: LocatedSchema | None,
    bounds: tuple[int, int | None],
    shape: Callable[[LocatedSchema], ValueBounds],
    out: dict[str, Any],
) -> None:
    least, most = bounds
    if out.get("items") is False:
        most = len(prefix) if most is None else min(most, len(prefix))
    if most is not None and most <= 1:
        return
    if prefix:
        few = [shape(item).values for item in prefix]
        known = [one for one in few if one is not None]
        apart = len(known) == len(few) and sum(map(len, known)) == len(frozenset[str]().union(*known))
        if most is None or most > len(prefix) or not apart:
            raise place.error("uniqueItems", "cannot be enforced beside 'prefixItems' that could be equal.")
        return
    listed = shape(rest).values if rest is not None else None
    if listed is None:
        raise place.error(
            "uniqueItems", "can be enforced only for items of listed values ('enum', 'const', boolean)."
        )  # fmt: skip
    items = _in_order(rest, listed)
    most = len(items) if most is None else min(most, len(items))
    lengths = range(least, most + 1)
    if not keyword_values.sum_is_at_most((comb(len(items), length) for length in lengths), _MAX_SETS):
        raise place.error("uniqueItems", f"has more than {_MAX_SETS} sets of items: 7 values can be enforced.")
    ordered = keyword_values.sum_is_at_most((perm(len(items), length) for length in lengths), _MAX_SETS)
    sets = chain.from_iterable((permutations if ordered else combinations)(items, length) for length in lengths)
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
    others = [one for one in keyword_values.read_types(place) or TYPES if one != "array"]
    out["anyOf"] = [*arrays, *([{"type": others}] if others else [])]
    for keyword in ("minItems", "maxItems"):
        out.pop(keyword, None)


def _in_order(place: LocatedSchema | None, listed: frozenset[str]) -> list[Any]:
    """Values in the order in which the schema lists them, if it does."""
    written = place.schema.get("enum") if place is not None and isinstance(place.schema, dict) else None
    texts = [keyword_values.canonical_json(value) for value in written] if isinstance(written, list) else sorted(listed)
    return [keyword_values.parse_canonical(text) for text in dict.fromkeys(texts) if text in listed]
