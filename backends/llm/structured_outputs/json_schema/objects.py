"""Objects: write `properties`, `required` and the other object keywords as llguidance needs them.

`propertyNames`, `minProperties` and `maxProperties` become combinations of keywords that it enforces.
"""

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
"""Most sets of optional members that are written out for `minProperties` and `maxProperties`."""
_UUID = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"


@dataclass(frozen=True, slots=True)
class UnknownMembers:
    """The rules for members of an object that no schema names: they must match `rest`, a normalized schema.

    `known` and `patterns` are the names and patterns that its schemas do name.
    """

    known: tuple[str, ...]
    patterns: tuple[str, ...] = ()
    rest: Any = False


class ObjectWriter:
    """Writes the object keywords of schemas."""

    def __init__(self, flattening: SchemaFlattener, normalize: Callable[[LocatedSchema], Any]) -> None:
        self._flattening = flattening
        self._normalize = normalize

    def write(self, located: LocatedSchema, unknown_members: UnknownMembers | None, out: dict[str, Any]) -> None:
        """Write the object keywords of a schema into `out`; further alternatives go to its `anyOf`.

        `unknown_members`, if given, closes the object. Raises `ValueError`.
        """
        schema = located.schema
        properties = {
            name: self._normalize(located.child("properties", name))
            for name in keyword_values.read_object(located, "properties")
        }
        patterns = {
            supported_pattern(located, "patternProperties", text): self._normalize(
                located.child("patternProperties", text)
            )
            for text in keyword_values.read_object(located, "patternProperties")
        }
        rest = self._normalize(located.child("additionalProperties")) if "additionalProperties" in schema else True
        if unknown_members is not None and "additionalProperties" not in schema:
            properties |= {name: True for name in unknown_members.known if name not in properties}
            patterns = dict.fromkeys(unknown_members.patterns, True) | patterns
            rest = unknown_members.rest
        if "propertyNames" in schema:
            rest = self._apply_property_names(located, properties, patterns, rest)
        if properties:
            out["properties"] = properties
        if patterns:
            out["patternProperties"] = patterns
        if rest is not True:
            out["additionalProperties"] = rest
        if required := keyword_values.read_names(located, "required"):
            out["required"] = required
        self._write_counts(located, out)

    def _apply_property_names(
        self, located: LocatedSchema, properties: dict[str, Any], patterns: dict[str, Any], rest: Any
    ) -> Any:
        """Apply `propertyNames` to `properties` and `patterns`, and return the schema of all other members."""
        names_schema = located.child("propertyNames")
        if names_schema.schema is False:
            for name in properties:
                properties[name] = False
            patterns.clear()
            return False
        listed = self._listed_names(names_schema)
        if listed is None and not self._name_patterns(names_schema):
            return rest
        if patterns:
            raise located.error("propertyNames", "cannot be enforced together with 'patternProperties'.")
        if listed is not None:
            for name in properties.keys() - set(listed):
                properties[name] = False
            properties |= {name: rest for name in listed if name not in properties}
            return False
        ((text, matches),) = self._name_patterns(names_schema)
        for name in properties:
            if not matches(name):
                properties[name] = False
        if rest is not False:
            patterns[text] = rest
        return False

    def _listed_names(self, names_schema: LocatedSchema) -> list[str] | None:
        """Return the names that a schema of names allows; None unless it only lists them."""
        if not isinstance(names_schema.schema, dict):
            return None
        flat = self._flattening.flatten(names_schema)
        listed: list[str] | None = None
        for one in flat.asserting:
            if one.schema.keys() & STRING:
                return None
            for values in (one.schema.get("enum"), [one.schema["const"]] if "const" in one.schema else None):
                if isinstance(values, list):
                    names = [name for name in values if isinstance(name, str)]
                    listed = names if listed is None else [name for name in listed if name in names]
        for choices in flat.alternatives:
            found: list[str] = []
            for choice in choices:
                choice_names = self._listed_names(choice)
                if choice_names is None:
                    raise names_schema.error("propertyNames", "must list the names in each of its schemas, or in none.")
                found += choice_names
            listed = found if listed is None else [name for name in listed if name in found]
        return listed

    def _name_patterns(self, names_schema: LocatedSchema) -> list[tuple[str, Callable[[str], bool]]]:
        """Return the regular expression that names must match, with its test; empty if any name will do."""
        if not isinstance(names_schema.schema, dict):
            return []
        flat = self._flattening.flatten(names_schema)
        found: list[tuple[str, Callable[[str], bool]]] = []
        for one in flat.asserting:
            if "string" not in (keyword_values.read_types(one) or ["string"]):
                raise names_schema.error("propertyNames", "must allow strings.")
            if one.schema.get("pattern") is not None:
                found.append(_name_pattern(one, supported_pattern(one, "pattern", one.schema["pattern"])))
            minimum, maximum = (
                keyword_values.read_count(one, "minLength") or 0,
                keyword_values.read_count(one, "maxLength"),
            )
            if minimum or maximum is not None:
                found.append(_name_pattern(one, rf"^[\s\S]{{{minimum},{'' if maximum is None else maximum}}}$"))
            if one.schema.get("format") == "uuid":
                found.append(_name_pattern(one, _UUID))
        if len(found) > 1 or flat.alternatives or flat.isolated or flat.is_unsatisfiable:
            raise names_schema.error("propertyNames", "may hold one pattern, one pair of lengths or listed names.")
        return found

    def _write_counts(self, located: LocatedSchema, out: dict[str, Any]) -> None:
        """Write `minProperties` and `maxProperties`. Raises `ValueError` if the members cannot be counted."""
        minimum, maximum = (
            keyword_values.read_count(located, "minProperties") or 0,
            keyword_values.read_count(located, "maxProperties"),
        )
        required = out.get("required", [])
        optional = [
            name for name, value in out.get("properties", {}).items() if value is not False and name not in required
        ]
        closed = out.get("additionalProperties") is False and "patternProperties" not in out
        minimum = 0 if minimum <= len(required) else minimum
        if maximum is not None and (
            maximum >= keyword_values.MAX_COUNT or (closed and maximum >= len(required) + len(optional))
        ):
            maximum = None
        if not minimum and maximum is None:
            return
        if not closed and (minimum > 1 or optional):
            keyword = "minProperties" if minimum else "maxProperties"
            needed = "additionalProperties false and no patternProperties"
            raise located.error(keyword, f"can be enforced only with {needed}.")
        if not closed or not optional:
            out |= {"minProperties": minimum} if minimum else {}
            out |= {"maxProperties": maximum} if maximum is not None else {}
            return
        low = max(0, minimum - len(required))
        high = len(optional) if maximum is None else min(len(optional), maximum - len(required))
        if not keyword_values.sum_is_at_most((comb(len(optional), count) for count in range(low, high + 1)), _MAX_SETS):
            if (low, high) == (1, len(optional)):
                out["minProperties"] = minimum  # llguidance enforces this case itself
                return
            keyword = "minProperties" if minimum else "maxProperties"
            raise located.error(keyword, f"has more than {_MAX_SETS} sets of optional properties.")
        out["anyOf"] = [
            {"required": list(present), "properties": {name: False for name in optional if name not in present}}
            for count in range(low, high + 1)
            for present in combinations(optional, count)
        ] or [False]


def _name_pattern(located: LocatedSchema, text: str) -> tuple[str, Callable[[str], bool]]:
    try:
        compiled = re.compile(text)
    except (re.error, OverflowError, RecursionError):
        raise located.error("pattern", "is not a regular expression that is supported for names.") from None
    return text, lambda name: compiled.search(name) is not None
