"""Arrays."""

from collections.abc import Callable
from itertools import chain, combinations, permutations
from math import comb, perm
from typing import Any

from backends.llm.structures.schemas import values
from backends.llm.structures.schemas.document import Place
from backends.llm.structures.schemas.keywords import IN_PLACE, SAYING, TYPES
from backends.llm.structures.schemas.shapes import Shape

_MOST_SETS = 128
"""Arrays of different values that are written out: all orders of 4 values, all sets of 7."""


def arrays(place: Place, normal: Callable[[Place], Any], shape: Callable[[Place], Shape], out: dict[str, Any]) -> None:
    """Write what is said of arrays into `out`. Raises `ValueError`."""
    schema = place.schema
    prefix, rest = _items(place)
    least, most = values.whole(place, "minItems") or 0, values.whole(place, "maxItems")
    if "contains" in schema:
        least, most = _containing(place, least, most)
    if prefix:
        out["prefixItems"] = [normal(item) for item in prefix]
    if rest is not None and (items := normal(rest)) is not True:
        out["items"] = items
    if least:
        out["minItems"] = least
    if most is not None and most < values.MOST:
        out["maxItems"] = most
    if schema.get("uniqueItems") not in (None, False):
        if schema["uniqueItems"] is not True:
            raise place.refused("uniqueItems", "must be true or false.")
        _unique(place, prefix, rest, (least, most), shape, out)


def _items(place: Place) -> tuple[list[Place], Place | None]:
    """The schemas of the first items, and that of the others; None where nothing is said of them."""
    schema = place.schema
    first = "items" if isinstance(schema.get("items"), list) else "prefixItems"
    others = "additionalItems" if first == "items" else "items"
    listed = schema.get(first, [])
    if not isinstance(listed, list):
        raise place.refused(first, "must be a list of schemas.")
    prefix = [place.inside(first, number) for number in range(len(listed))]
    if others not in schema and schema.get("unevaluatedItems", True) is not True:
        if IN_PLACE & schema.keys():
            raise place.refused("unevaluatedItems", "cannot be enforced beside other schemas of the same array.")
        others = "unevaluatedItems"
    return prefix, place.inside(others) if others in schema else None


def _containing(place: Place, least: int, most: int | None) -> tuple[int, int | None]:
    """`contains`, where every item counts or none has to."""
    some, many = values.whole(place, "minContains"), values.whole(place, "maxContains")
    some = 1 if some is None else some
    about = place.schema["contains"]
    if about is True or (isinstance(about, dict) and not SAYING & about.keys()):
        return max(least, some), many if most is None else most if many is None else min(most, many)
    if some or many is not None:
        raise place.refused("contains", "cannot be enforced; 'items' and 'prefixItems' can.")
    return least, most


def _unique(
    place: Place,
    prefix: list[Place],
    rest: Place | None,
    bounds: tuple[int, int | None],
    shape: Callable[[Place], Shape],
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
            raise place.refused("uniqueItems", "cannot be enforced beside 'prefixItems' that could be equal.")
        return
    listed = shape(rest).values if rest is not None else None
    if listed is None:
        raise place.refused(
            "uniqueItems", "can be enforced only for items of listed values ('enum', 'const', boolean)."
        )  # fmt: skip
    items = _in_order(rest, listed)
    most = len(items) if most is None else min(most, len(items))
    lengths = range(least, most + 1)
    if not values.are_few((comb(len(items), length) for length in lengths), _MOST_SETS):
        raise place.refused("uniqueItems", f"has more than {_MOST_SETS} sets of items: 7 values can be enforced.")
    ordered = values.are_few((perm(len(items), length) for length in lengths), _MOST_SETS)
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
    others = [one for one in values.types(place) or TYPES if one != "array"]
    out["anyOf"] = [*arrays, *([{"type": others}] if others else [])]
    for keyword in ("minItems", "maxItems"):
        out.pop(keyword, None)


def _in_order(place: Place | None, listed: frozenset[str]) -> list[Any]:
    """Values in the order in which the schema lists them, if it does."""
    written = place.schema.get("enum") if place is not None and isinstance(place.schema, dict) else None
    texts = [values.canonical(value) for value in written] if isinstance(written, list) else sorted(listed)
    return [values.parsed(text) for text in dict.fromkeys(texts) if text in listed]
