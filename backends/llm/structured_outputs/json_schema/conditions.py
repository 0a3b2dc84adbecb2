"""`if` and `not`, for conditions whose negation can be written as a schema too."""

from typing import Any

from backends.llm.structured_outputs.json_schema import keyword_values
from backends.llm.structured_outputs.json_schema.document import LocatedSchema
from backends.llm.structured_outputs.json_schema.keywords import CONSTRAINING, TYPES
from backends.llm.structured_outputs.json_schema.value_bounds import ValueBounds


def if_alternatives(located: LocatedSchema, context: ValueBounds) -> list[LocatedSchema]:
    """Return the two cases of a schema with `if`. Raises `ValueError` if the condition cannot be negated.

    `context` are the bounds of the value by all other schemas.
    """
    condition = located.child("if")
    then = located.child("then") if "then" in located.schema else True
    otherwise = located.child("else") if "else" in located.schema else True
    keywords = _constraining_keywords(condition)
    if condition.schema is False or not keywords:
        return [located.with_schema({"allOf": [otherwise if keywords else then]})]
    negated = _negation(condition, keywords, context)
    if negated is None:
        raise located.error(
            "if",
            "can be enforced only if it requires a property, or a constant of a property whose values are listed in "
            "'enum' or 'const'.",
        )
    return [located.with_schema({"allOf": [condition, then]}), located.with_schema({"allOf": [negated, otherwise]})]


def not_alternatives(located: LocatedSchema, context: ValueBounds) -> list[LocatedSchema] | None:
    """Return the schemas that together stand for `not`; None if it excludes nothing. Raises `ValueError`."""
    excluded_schema = located.child("not")
    if excluded_schema.schema is False:
        return None
    keywords = _constraining_keywords(excluded_schema)
    if not keywords:
        return [excluded_schema.with_schema(False)]
    left = _negation(excluded_schema, keywords, context)
    if left is None and keywords.keys() == {"type"}:
        types = keyword_values.read_types(excluded_schema) or []
        if "integer" not in types:
            left = {"type": [one for one in TYPES if one not in types]} if {*TYPES} - {*types} else False
    if left is None and keywords.keys() <= {"const", "enum", "type"} and context.values is not None:
        listed = [keywords["const"]] if "const" in keywords else keywords.get("enum", [])
        excluded = {keyword_values.canonical_json(value) for value in listed}
        left = _enum_of(context.values - excluded) if listed and "type" not in keywords else None
    if left is None:
        raise located.error(
            "not",
            "can be enforced only for types, for one required property, and for constants of a value that 'enum' or "
            "'const' lists.",
        )
    return [located.with_schema(left)]


def _constraining_keywords(located: LocatedSchema) -> dict[str, Any]:
    """Return the keywords of a schema that constrain values; `{"not": True}` for the schema `false`."""
    if not isinstance(located.schema, dict):
        return {} if located.schema is True else {"not": True}
    return {keyword: value for keyword, value in located.schema.items() if keyword in CONSTRAINING}


def _negation(located: LocatedSchema, keywords: dict[str, Any], context: ValueBounds) -> Any:
    """Return a schema of the objects that do not match a schema about a single property; None if there is no such."""
    if keywords.get("type", "object") != "object" or not keywords.keys() <= {"type", "properties", "required"}:
        return None
    properties, required = (
        keyword_values.read_object(located, "properties"),
        keyword_values.read_names(located, "required"),
    )
    if not properties and len(required) == 1:
        return {"type": "object", "properties": {required[0]: False}}
    if len(properties) != 1 or not set(required) <= properties.keys():
        return None
    ((name, member_schema),) = properties.items()
    if not isinstance(member_schema, dict) or member_schema.keys() & CONSTRAINING - {"const", "enum", "type"}:
        return None
    listed = [member_schema["const"]] if "const" in member_schema else member_schema.get("enum")
    if not isinstance(listed, list) or name not in context.member_values:
        return None
    others = {name: _enum_of(context.member_values[name] - {keyword_values.canonical_json(value) for value in listed})}
    return {"type": "object", "properties": others, "required": [] if required else [name]}


def _enum_of(canonical: frozenset[str]) -> Any:
    return {"enum": [keyword_values.parse_canonical(text) for text in sorted(canonical)]} if canonical else False
