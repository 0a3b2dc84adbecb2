"""Objects."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

from backends.llm.structured_outputs.json_schema import keyword_values
from backends.llm.structured_outputs.json_schema.document import LocatedSchema
from backends.llm.structured_outputs.json_schema.flattening import SchemaFlattener
from backends.llm.structured_outputs.json_schema.keywords import STRING
from backends.llm.structured_outputs.json_schema.scalars import supported_pattern

_MAX_SETS = 128
"""Sets of optional members that are written out for `minProperties` and `maxProperties`."""
_UUID = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"


@dataclass(frozen=True, slots=True)
class UnknownMembers:
    """What becomes of the members that nothing is said of: `rest`, a schema that is normal already."""

    known: tuple[str, ...]
    patterns: tuple[str, ...] = ()
    rest: Any = False


class ObjectWriter:
    """Writes what is said of objects."""

    def __init__(self, flattening: SchemaFlattener, normal: Callable[[LocatedSchema], Any]) -> None:
        self._flattening = flattening
        self._normal = normal

    def write(self, place: LocatedSchema, closing: UnknownMembers | None, out: dict[str, Any]) -> None:
        """Write it into `out`. Raises `ValueError`."""
        schema = place.schema
        properties = {
            name: self._normal(place.child("properties", name))
            for name in keyword_values.read_object(place, "properties")
        }
        patterns = {
            supported_pattern(place, "patternProperties", text): self._normal(place.child("patternProperties", text))
            for text in keyword_values.read_object(place, "patternProperties")
        }
        rest = self._normal(place.child("additionalProperties")) if "additionalProperties" in schema else True
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
        if required := keyword_values.read_names(place, "required"):
            out["required"] = required
        self._count(place, out)

    def _names(self, place: LocatedSchema, properties: dict[str, Any], patterns: dict[str, Any], rest: Any) -> Any:
        """Take `propertyNames` into account, and return what becomes of other members."""
        about = place.child("propertyNames")
        if about.schema is False:
            for name in properties:
                properties[name] = False
            patterns.clear()
            return False
        listed = self._listed_names(about)
        if listed is None and not self._name_patterns(about):
            return rest
        if patterns:
            raise place.error("propertyNames", "cannot be enforced beside 'patternProperties'.")
        if listed is not None:
            for name in properties.keys() - set(listed):
                properties[name] = False
            properties |= {name: rest for name in listed if name not in properties}
            return False
        ((text, fits),) = self._name_patterns(about)
        for name in properties:
            if not fits(name):
                properties[name] = False
        if rest is not False:
            patterns[text] = rest
        return False

    def _listed_names(self, about: LocatedSchema) -> list[str] | None:
        """The names that a schema of names allows, where it lists them and says nothing else."""
        if not isinstance(about.schema, dict):
            return None
        flat = self._flattening.of(about)
        listed: list[str] | None = None
        for one in flat.asserting:
            if one.schema.keys() & STRING:
                return None
            for some in (one.schema.get("enum"), [one.schema["const"]] if "const" in one.schema else None):
                if isinstance(some, list):
                    names = [name for name in some if isinstance(name, str)]
                    listed = names if listed is None else [name for name in listed if name in names]
        for choices in flat.alternatives:
            found: list[str] = []
            for choice in choices:
                some = self._listed_names(choice)
                if some is None:
                    raise about.error("propertyNames", "must list the names in each of its schemas, or in none.")
                found += some
            listed = found if listed is None else [name for name in listed if name in found]
        return listed

    def _name_patterns(self, about: LocatedSchema) -> list[tuple[str, Callable[[str], bool]]]:
        """The expression that names have to match, and whether one does; nothing where any will do."""
        if not isinstance(about.schema, dict):
            return []
        flat = self._flattening.of(about)
        found: list[tuple[str, Callable[[str], bool]]] = []
        for one in flat.asserting:
            if "string" not in (keyword_values.read_types(one) or ["string"]):
                raise about.error("propertyNames", "must allow strings.")
            if one.schema.get("pattern") is not None:
                found.append(_name_pattern(one, supported_pattern(one, "pattern", one.schema["pattern"])))
            least, most = keyword_values.read_count(one, "minLength") or 0, keyword_values.read_count(one, "maxLength")
            if least or most is not None:
                found.append(_name_pattern(one, rf"^[\s\S]{{{least},{'' if most is None else most}}}$"))
            if one.schema.get("format") == "uuid":
                found.append(_name_pattern(one, _UUID))
        if len(found) > 1 or flat.alternatives or flat.isolated or flat.is_unsatisfiable:
            raise about.error("propertyNames", "may hold one pattern, one pair of lengths or listed names.")
        return found

    def _count(self, place: LocatedSchema, out: dict[str, Any]) -> None:
        """`minProperties` and `maxProperties`, where the members can be counted."""
        least, most = (
            keyword_values.read_count(place, "minProperties") or 0,
            keyword_values.read_count(place, "maxProperties"),
        )
        required = out.get("required", [])
        optional = [
            name for name, value in out.get("properties", {}).items() if value is not False and name not in required
        ]
        closed = out.get("additionalProperties") is False and "patternProperties" not in out
        least = 0 if least <= len(required) else least
        if most is not None and (
            most >= keyword_values.MAX_COUNT or (closed and most >= len(required) + len(optional))
        ):
            most = None
        if not least and most is None:
            return
        if not closed and (least > 1 or optional):
            keyword = "minProperties" if least else "maxProperties"
            needed = "additionalProperties false and no patternProperties"
            raise place.error(keyword, f"needs {needed}, or it could not be counted.")
        if not closed or not optional:
            out |= {"minProperties": least} if least else {}
            out |= {"maxProperties": most} if most is not None else {}
            return
        low = max(0, least - len(required))
        high = len(optional) if most is None else min(len(optional), most - len(required))
        if not keyword_values.sum_is_at_most((comb(len(optional), count) for count in range(low, high + 1)), _MAX_SETS):
            if (low, high) == (1, len(optional)):
                out["minProperties"] = least  # which the library knows
                return
            keyword = "minProperties" if least else "maxProperties"
            raise place.error(keyword, f"has more than {_MAX_SETS} sets of optional properties.")
        out["anyOf"] = [
            {"required": list(some), "properties": {name: False for name in optional if name not in some}}
            for count in range(low, high + 1)
            for some in combinations(optional, count)
        ] or [False]


def _name_pattern(place: LocatedSchema, text: str) -> tuple[str, Callable[[str], bool]]:
    try:
        compiled = re.compile(text)
    except (re.error, OverflowError, RecursionError):
        raise place.error("pattern", "is no regular expression that names can be compared with.") from None
    return text, lambda name: compiled.search(name) is not None
