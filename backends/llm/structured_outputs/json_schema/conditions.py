"""`if` and `not`, where what does not match can be said as a schema too."""

from typing import Any

from backends.llm.structured_outputs.json_schema import keyword_values
from backends.llm.structured_outputs.json_schema.document import LocatedSchema
from backends.llm.structured_outputs.json_schema.keywords import CONSTRAINING, TYPES
from backends.llm.structured_outputs.json_schema.value_bounds import ValueBounds


def if_alternatives(place: LocatedSchema, around: ValueBounds) -> list[LocatedSchema]:
    """Return the two cases of a schema with `if`. Raises `ValueError` where the second cannot be said.

    `around` is all that is known of the value.
    """
    condition = place.child("if")
    then = place.child("then") if "then" in place.schema else True
    otherwise = place.child("else") if "else" in place.schema else True
    met = _constraining_keywords(condition)
    if condition.schema is False or not met:
        return [place.with_schema({"allOf": [otherwise if met else then]})]
    unmet = _negation(condition, met, around)
    if unmet is None:
        raise place.error(
            "if", "can be enforced only where it asks for a property, or for a constant of a property whose values "
            "are listed in 'enum' or 'const'."
        )  # fmt: skip
    return [place.with_schema({"allOf": [condition, then]}), place.with_schema({"allOf": [unmet, otherwise]})]


def not_alternatives(place: LocatedSchema, around: ValueBounds) -> list[LocatedSchema] | None:
    """Return what is left by `not`, all of which holds; None where that is everything. Raises `ValueError`."""
    denied = place.child("not")
    if denied.schema is False:
        return None
    said = _constraining_keywords(denied)
    if not said:
        return [denied.with_schema(False)]
    left = _negation(denied, said, around)
    if left is None and said.keys() == {"type"}:
        types = keyword_values.read_types(denied) or []
        if "integer" not in types:
            left = {"type": [one for one in TYPES if one not in types]} if {*TYPES} - {*types} else False
    if left is None and said.keys() <= {"const", "enum", "type"} and around.values is not None:
        listed = [said["const"]] if "const" in said else said.get("enum", [])
        taken = {keyword_values.canonical_json(value) for value in listed}
        left = _enum_of(around.values - taken) if listed and "type" not in said else None
    if left is None:
        raise place.error(
            "not",
            "can be enforced only for types, for one required property, and for constants of what has listed values.",
        )
    return [place.with_schema(left)]


def _constraining_keywords(place: LocatedSchema) -> dict[str, Any]:
    """The keywords of a schema that say something."""
    if not isinstance(place.schema, dict):
        return {} if place.schema is True else {"not": True}
    return {keyword: value for keyword, value in place.schema.items() if keyword in CONSTRAINING}


def _negation(place: LocatedSchema, said: dict[str, Any], around: ValueBounds) -> Any:
    """The objects that do not match a schema about a single property; None where that is not known."""
    if said.get("type", "object") != "object" or not said.keys() <= {"type", "properties", "required"}:
        return None
    properties, required = keyword_values.read_object(place, "properties"), keyword_values.read_names(place, "required")
    if not properties and len(required) == 1:
        return {"type": "object", "properties": {required[0]: False}}
    if len(properties) != 1 or not set(required) <= properties.keys():
        return None
    ((name, about),) = properties.items()
    if not isinstance(about, dict) or about.keys() & CONSTRAINING - {"const", "enum", "type"}:
        return None
    listed = [about["const"]] if "const" in about else about.get("enum")
    if not isinstance(listed, list) or name not in around.member_values:
        return None
    others = {name: _enum_of(around.member_values[name] - {keyword_values.canonical_json(value) for value in listed})}
    return {"type": "object", "properties": others, "required": [] if required else [name]}


def _enum_of(canonical: frozenset[str]) -> Any:
    return {"enum": [keyword_values.parse_canonical(text) for text in sorted(canonical)]} if canonical else False
