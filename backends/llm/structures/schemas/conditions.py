"""`if` and `not`, where what does not match can be said as a schema too."""

from typing import Any

from backends.llm.structures.schemas import values
from backends.llm.structures.schemas.document import Place
from backends.llm.structures.schemas.keywords import SAYING, TYPES
from backends.llm.structures.schemas.shapes import Shape


def choices_of_if(place: Place, around: Shape) -> list[Place]:
    """Return the two cases of a schema with `if`. Raises `ValueError` where the second cannot be said.

    `around` is all that is known of the value.
    """
    condition = place.inside("if")
    then = place.inside("then") if "then" in place.schema else True
    otherwise = place.inside("else") if "else" in place.schema else True
    met = _said(condition)
    if condition.schema is False or not met:
        return [place.made({"allOf": [otherwise if met else then]})]
    unmet = _opposite(condition, met, around)
    if unmet is None:
        raise place.refused(
            "if", "can be enforced only where it asks for a property, or for a constant of a property whose values "
            "are listed in 'enum' or 'const'."
        )  # fmt: skip
    return [place.made({"allOf": [condition, then]}), place.made({"allOf": [unmet, otherwise]})]


def choices_of_not(place: Place, around: Shape) -> list[Place] | None:
    """Return what is left by `not`, all of which holds; None where that is everything. Raises `ValueError`."""
    denied = place.inside("not")
    if denied.schema is False:
        return None
    said = _said(denied)
    if not said:
        return [denied.made(False)]
    left = _opposite(denied, said, around)
    if left is None and said.keys() == {"type"}:
        types = values.types(denied) or []
        if "integer" not in types:
            left = {"type": [one for one in TYPES if one not in types]} if {*TYPES} - {*types} else False
    if left is None and said.keys() <= {"const", "enum", "type"} and around.values is not None:
        listed = [said["const"]] if "const" in said else said.get("enum", [])
        taken = {values.canonical(value) for value in listed}
        left = _only(around.values - taken) if listed and "type" not in said else None
    if left is None:
        raise place.refused(
            "not",
            "can be enforced only for types, for one required property, and for constants of what has listed values.",
        )
    return [place.made(left)]


def _said(place: Place) -> dict[str, Any]:
    """The keywords of a schema that say something."""
    if not isinstance(place.schema, dict):
        return {} if place.schema is True else {"not": True}
    return {keyword: value for keyword, value in place.schema.items() if keyword in SAYING}


def _opposite(place: Place, said: dict[str, Any], around: Shape) -> Any:
    """The objects that do not match a schema about a single property; None where that is not known."""
    if said.get("type", "object") != "object" or not said.keys() <= {"type", "properties", "required"}:
        return None
    properties, required = values.named(place, "properties"), values.names(place, "required")
    if not properties and len(required) == 1:
        return {"type": "object", "properties": {required[0]: False}}
    if len(properties) != 1 or not set(required) <= properties.keys():
        return None
    ((name, about),) = properties.items()
    if not isinstance(about, dict) or about.keys() & SAYING - {"const", "enum", "type"}:
        return None
    listed = [about["const"]] if "const" in about else about.get("enum")
    if not isinstance(listed, list) or name not in around.members:
        return None
    others = {name: _only(around.members[name] - {values.canonical(value) for value in listed})}
    return {"type": "object", "properties": others, "required": [] if required else [name]}


def _only(canonical: frozenset[str]) -> Any:
    return {"enum": [values.parsed(text) for text in sorted(canonical)]} if canonical else False
