"""Flattening: collect all schemas that apply to one value, through references, `allOf`, `anyOf` and conditions."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from backends.llm.structured_outputs.json_schema import keyword_values
from backends.llm.structured_outputs.json_schema.conditions import if_alternatives, not_alternatives
from backends.llm.structured_outputs.json_schema.document import LocatedSchema, SchemaDocument
from backends.llm.structured_outputs.json_schema.keywords import ASSERTIONS, REFERENCES
from backends.llm.structured_outputs.json_schema.members import MemberAnalysis
from backends.llm.structured_outputs.json_schema.value_bounds import BoundsAnalysis, disambiguate

_MAX_PARTS = 20_000
"""Schemas that flattening one document may visit."""


@dataclass(slots=True)
class FlatSchema:
    """All schemas that apply to one value, through references and `allOf`."""

    asserting: list[LocatedSchema] = field(default_factory=list)
    """Schemas with assertions of their own (`keywords.ASSERTIONS`)."""
    alternatives: list[list[LocatedSchema]] = field(default_factory=list)
    """Lists of schemas; at least one of each list must match."""
    isolated: list[LocatedSchema] = field(default_factory=list)
    """Schemas with `unevaluatedProperties`, which take no account of the other schemas."""
    is_unsatisfiable: bool = False
    """True if no value matches."""


class SchemaFlattener:
    """Flattens the schemas of one document, in bounded work."""

    def __init__(self, document: SchemaDocument) -> None:
        self.document = document
        self.bounds = BoundsAnalysis(document)
        self.members = MemberAnalysis(document)
        self._budget = _MAX_PARTS

    def flatten(self, located: LocatedSchema) -> FlatSchema:
        """Flatten a schema. Raises `ValueError` for what cannot be enforced."""
        flat = FlatSchema()
        self._add(flat, located, located, frozenset())
        return flat

    def _add(self, flat: FlatSchema, located: LocatedSchema, top: LocatedSchema, ancestors: frozenset[int]) -> None:
        schema = located.schema
        self._budget -= 1
        if self._budget < 0:
            raise ValueError("the schema is too large once its references are expanded.")
        if isinstance(schema, bool):
            flat.is_unsatisfiable |= not schema
            return
        if not isinstance(schema, dict):
            raise ValueError(f"the value at '{located.pointer[:200]}' is not a schema: an object, true or false.")
        if located is not top and schema.get("unevaluatedProperties", True) is not True:
            flat.isolated.append(located)
            return
        if ASSERTIONS & schema.keys():
            flat.asserting.append(located)
        for keyword in REFERENCES:
            if keyword in schema:
                target = self.document.resolve(located, keyword)
                if id(target.schema) in ancestors or target.schema is schema:
                    raise located.error(keyword, "refers back to itself, so no value matches it.")
                self._add(flat, target, top, ancestors | {id(target.schema), id(schema)})
        if "allOf" in schema:
            for number in range(len(keyword_values.read_list(located, "allOf"))):
                self._add(flat, located.child("allOf", number), top, ancestors | {id(schema)})
        for choices in self._choices(located, top):
            if len(choices) == 1:
                self._add(flat, choices[0], top, ancestors | {id(schema)})
            else:
                flat.alternatives.append(choices)

    def _choices(self, located: LocatedSchema, top: LocatedSchema) -> Iterable[list[LocatedSchema]]:
        schema = located.schema
        if "anyOf" in schema:
            yield [located.child("anyOf", number) for number in range(len(keyword_values.read_list(located, "anyOf")))]
        if "oneOf" in schema:
            yield self._one_of(located, top)
        if (
            schema.get("not") is not None
            and (choices := not_alternatives(located, self.bounds.bounds_of(top))) is not None
        ):
            yield choices
        if "if" in schema and ("then" in schema or "else" in schema):
            yield if_alternatives(located, self.bounds.bounds_of(top))
        yield from _dependent(located)

    def _one_of(self, located: LocatedSchema, top: LocatedSchema) -> list[LocatedSchema]:
        """Return the branches of a `oneOf`, with guards so that no value matches two. Raises `ValueError`."""
        branches = [located.child("oneOf", number) for number in range(len(keyword_values.read_list(located, "oneOf")))]
        branches = [branch for branch in branches if branch.schema is not False] or branches[:1]
        if len(branches) == 1:
            return branches
        guards = disambiguate([self.bounds.bounds_of(branch) for branch in branches], self.bounds.bounds_of(top))
        if isinstance(guards, tuple):
            pointers = " and ".join(f"'{branches[number].pointer[:80]}'" for number in guards)
            raise located.error(
                "oneOf",
                f"accepts only values that match exactly one schema, and {pointers} cannot be told apart: write anyOf, "
                "or give them a property with different constants.",
            )
        extra_schemas = [guard.schema() for guard in guards]
        return [
            branch.with_schema({"allOf": [branch, guard]}) if guard else branch
            for branch, guard in zip(branches, extra_schemas, strict=True)
        ]


def _dependent(located: LocatedSchema) -> Iterable[list[LocatedSchema]]:
    """Yield the alternatives of each dependent member: it is absent, or the schemas that depend on it hold too."""
    for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
        for name in keyword_values.read_object(located, keyword):
            absent = located.with_schema({"properties": {name: False}})
            part = located.child(keyword, name)
            if part.schema in (True, []) or (keyword == "dependentSchemas" and part.schema == {}):
                continue
            if isinstance(part.schema, list) and keyword != "dependentSchemas":
                needed = keyword_values.read_names(located.with_schema({"required": part.schema}), "required")
                yield [absent, located.with_schema({"required": [name, *needed]})]
            elif keyword == "dependentRequired":
                raise located.error(keyword, "must hold lists of names.")
            else:
                has_member = located.with_schema({"required": [name]})
                yield [absent, part.with_schema({"allOf": [has_member, part]})]
