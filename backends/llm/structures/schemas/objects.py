"""Objects."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

from backends.llm.structures.schemas import values
from backends.llm.structures.schemas.document import Place
from backends.llm.structures.schemas.flat import Flattening
from backends.llm.structures.schemas.keywords import STRING
from backends.llm.structures.schemas.scalars import pattern

_MOST_SETS = 128
"""Sets of optional members that are written out for `minProperties` and `maxProperties`."""
_UUID = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"


@dataclass(frozen=True, slots=True)
class Closing:
    """What becomes of the members that nothing is said of: `rest`, a schema that is normal already."""

    known: tuple[str, ...]
    patterns: tuple[str, ...] = ()
    rest: Any = False


class Objects:
    """Writes what is said of objects."""

    def __init__(self, flattening: Flattening, normal: Callable[[Place], Any]) -> None:
        self._flattening = flattening
        self._normal = normal

    def write(self, place: Place, closing: Closing | None, out: dict[str, Any]) -> None:
        """Write it into `out`. Raises `ValueError`."""
        schema = place.schema
        properties = {
            name: self._normal(place.inside("properties", name)) for name in values.named(place, "properties")
        }
        patterns = {
            pattern(place, "patternProperties", text): self._normal(place.inside("patternProperties", text))
            for text in values.named(place, "patternProperties")
        }
        rest = self._normal(place.inside("additionalProperties")) if "additionalProperties" in schema else True
        if closing is not None and "additionalProperties" not in schema:
            properties |= {name: True for name in closing.known if name not in properties}
            patterns = dict.fromkeys(closing.patterns, True) | patterns
            rest = closing.rest
        if "propertyNames" in schema:
            rest = self._names(place, properties, patterns, rest)
        if properties:
            out["properties"] = properties
        if patterns:
            out["patternProperties"] = patterns
        if rest is not True:
            out["additionalProperties"] = rest
        if required := values.names(place, "required"):
            out["required"] = required
        self._count(place, out)

    def _names(self, place: Place, properties: dict[str, Any], patterns: dict[str, Any], rest: Any) -> Any:
        """Take `propertyNames` into account, and return what becomes of other members."""
        about = place.inside("propertyNames")
        if about.schema is False:
            for name in properties:
                properties[name] = False
            patterns.clear()
            return False
        listed = self._listed(about)
        if listed is None and not self._texts(about):
            return rest
        if patterns:
            raise place.refused("propertyNames", "cannot be enforced beside 'patternProperties'.")
        if listed is not None:
            for name in properties.keys() - set(listed):
                properties[name] = False
            properties |= {name: rest for name in listed if name not in properties}
            return False
        ((text, fits),) = self._texts(about)
        for name in properties:
            if not fits(name):
                properties[name] = False
        if rest is not False:
            patterns[text] = rest
        return False

    def _listed(self, about: Place) -> list[str] | None:
        """The names that a schema of names allows, where it lists them and says nothing else."""
        if not isinstance(about.schema, dict):
            return None
        flat = self._flattening.of(about)
        listed: list[str] | None = None
        for one in flat.own:
            if one.schema.keys() & STRING:
                return None
            for some in (one.schema.get("enum"), [one.schema["const"]] if "const" in one.schema else None):
                if isinstance(some, list):
                    names = [name for name in some if isinstance(name, str)]
                    listed = names if listed is None else [name for name in listed if name in names]
        for choices in flat.choices:
            found: list[str] = []
            for choice in choices:
                some = self._listed(choice)
                if some is None:
                    raise about.refused("propertyNames", "must list the names in each of its schemas, or in none.")
                found += some
            listed = found if listed is None else [name for name in listed if name in found]
        return listed

    def _texts(self, about: Place) -> list[tuple[str, Callable[[str], bool]]]:
        """The expression that names have to match, and whether one does; nothing where any will do."""
        if not isinstance(about.schema, dict):
            return []
        flat = self._flattening.of(about)
        found: list[tuple[str, Callable[[str], bool]]] = []
        for one in flat.own:
            if "string" not in (values.types(one) or ["string"]):
                raise about.refused("propertyNames", "must allow strings.")
            if one.schema.get("pattern") is not None:
                found.append(_matching(one, pattern(one, "pattern", one.schema["pattern"])))
            least, most = values.whole(one, "minLength") or 0, values.whole(one, "maxLength")
            if least or most is not None:
                found.append(_matching(one, rf"^[\s\S]{{{least},{'' if most is None else most}}}$"))
            if one.schema.get("format") == "uuid":
                found.append(_matching(one, _UUID))
        if len(found) > 1 or flat.choices or flat.sealed or flat.nothing:
            raise about.refused("propertyNames", "may hold one pattern, one pair of lengths or listed names.")
        return found

    def _count(self, place: Place, out: dict[str, Any]) -> None:
        """`minProperties` and `maxProperties`, where the members can be counted."""
        least, most = values.whole(place, "minProperties") or 0, values.whole(place, "maxProperties")
        required = out.get("required", [])
        optional = [
            name for name, value in out.get("properties", {}).items() if value is not False and name not in required
        ]
        closed = out.get("additionalProperties") is False and "patternProperties" not in out
        least = 0 if least <= len(required) else least
        if most is not None and (most >= values.MOST or (closed and most >= len(required) + len(optional))):
            most = None
        if not least and most is None:
            return
        if not closed and (least > 1 or optional):
            keyword = "minProperties" if least else "maxProperties"
            needed = "additionalProperties false and no patternProperties"
            raise place.refused(keyword, f"needs {needed}, or it could not be counted.")
        if not closed or not optional:
            out |= {"minProperties": least} if least else {}
            out |= {"maxProperties": most} if most is not None else {}
            return
        low = max(0, least - len(required))
        high = len(optional) if most is None else min(len(optional), most - len(required))
        if not values.are_few((comb(len(optional), count) for count in range(low, high + 1)), _MOST_SETS):
            if (low, high) == (1, len(optional)):
                out["minProperties"] = least  # which the library knows
                return
            keyword = "minProperties" if least else "maxProperties"
            raise place.refused(keyword, f"has more than {_MOST_SETS} sets of optional properties.")
        out["anyOf"] = [
            {"required": list(some), "properties": {name: False for name in optional if name not in some}}
            for count in range(low, high + 1)
            for some in combinations(optional, count)
        ] or [False]


def _matching(place: Place, text: str) -> tuple[str, Callable[[str], bool]]:
    try:
        compiled = re.compile(text)
    except (re.error, OverflowError, RecursionError):
        raise place.refused("pattern", "is no regular expression that names can be compared with.") from None
    return text, lambda name: compiled.search(name) is not None
