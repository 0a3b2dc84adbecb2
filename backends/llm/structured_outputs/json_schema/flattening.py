"""A schema with all that is said of the same value by other schemas: `allOf`, `anyOf`, references and conditions."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from backends.llm.structured_outputs.json_schema import keyword_values
from backends.llm.structured_outputs.json_schema.conditions import if_alternatives, not_alternatives
from backends.llm.structured_outputs.json_schema.document import LocatedSchema, SchemaDocument
from backends.llm.structured_outputs.json_schema.keywords import ASSERTIONS, REFERENCES
from backends.llm.structured_outputs.json_schema.members import MemberAnalysis
from backends.llm.structured_outputs.json_schema.value_bounds import BoundsAnalysis, disambiguate

_MAX_PARTS = 20_000


@dataclass(slots=True)
class FlatSchema:
    """All schemas that apply to one value, through references and `allOf`."""

    asserting: list[LocatedSchema] = field(default_factory=list)
    """Schemas whose keywords say something by themselves."""
    alternatives: list[list[LocatedSchema]] = field(default_factory=list)
    """Of each of these lists one schema holds, or several."""
    isolated: list[LocatedSchema] = field(default_factory=list)
    """Schemas with `unevaluatedProperties`, which see nothing of what stands beside them."""
    is_unsatisfiable: bool = False
    """Whether no value can do."""


class SchemaFlattener:
    """Flattens the schemas of one document, in bounded work."""

    def __init__(self, document: SchemaDocument) -> None:
        self.document = document
        self.bounds = BoundsAnalysis(document)
        self.members = MemberAnalysis(document)
        self._budget = _MAX_PARTS

    def of(self, place: LocatedSchema) -> FlatSchema:
        """Return a schema flat. Raises `ValueError` for what cannot be enforced."""
        flat = FlatSchema()
        self._add(flat, place, place, frozenset())
        return flat

    def _add(self, flat: FlatSchema, place: LocatedSchema, top: LocatedSchema, inside: frozenset[int]) -> None:
        schema = place.schema
        self._budget -= 1
        if self._budget < 0:
            raise ValueError("the schema is too large where its references are written out.")
        if isinstance(schema, bool):
            flat.is_unsatisfiable |= not schema
            return
        if not isinstance(schema, dict):
            raise ValueError(f"what stands at '{place.pointer[:200]}' is no schema: an object, true or false.")
        if place is not top and schema.get("unevaluatedProperties", True) is not True:
            flat.isolated.append(place)
            return
        if ASSERTIONS & schema.keys():
            flat.asserting.append(place)
        for keyword in REFERENCES:
            if keyword in schema:
                target = self.document.resolve(place, keyword)
                if id(target.schema) in inside or target.schema is schema:
                    raise place.error(keyword, "leads back to itself: no text follows it.")
                self._add(flat, target, top, inside | {id(target.schema), id(schema)})
        if "allOf" in schema:
            for number in range(len(keyword_values.read_list(place, "allOf"))):
                self._add(flat, place.child("allOf", number), top, inside | {id(schema)})
        for choices in self._choices(place, top):
            if len(choices) == 1:
                self._add(flat, choices[0], top, inside | {id(schema)})
            else:
                flat.alternatives.append(choices)

    def _choices(self, place: LocatedSchema, top: LocatedSchema) -> Iterable[list[LocatedSchema]]:
        schema = place.schema
        if "anyOf" in schema:
            yield [place.child("anyOf", number) for number in range(len(keyword_values.read_list(place, "anyOf")))]
        if "oneOf" in schema:
            yield self._one_of(place, top)
        if (
            schema.get("not") is not None
            and (choices := not_alternatives(place, self.bounds.bounds_of(top))) is not None
        ):
            yield choices
        if "if" in schema and ("then" in schema or "else" in schema):
            yield if_alternatives(place, self.bounds.bounds_of(top))
        yield from _dependent(place)

    def _one_of(self, place: LocatedSchema, top: LocatedSchema) -> list[LocatedSchema]:
        """The branches of a `oneOf`, so that what one of them takes no other does."""
        branches = [place.child("oneOf", number) for number in range(len(keyword_values.read_list(place, "oneOf")))]
        branches = [branch for branch in branches if branch.schema is not False] or branches[:1]
        if len(branches) == 1:
            return branches
        guards = disambiguate([self.bounds.bounds_of(branch) for branch in branches], self.bounds.bounds_of(top))
        if isinstance(guards, tuple):
            pointers = " and ".join(f"'{branches[number].pointer[:80]}'" for number in guards)
            raise place.error(
                "oneOf", f"takes what matches one schema only, and {pointers} cannot be told apart: write anyOf, or "
                "give them a property with different constants."
            )  # fmt: skip
        asked = [guard.schema() for guard in guards]
        return [
            branch.with_schema({"allOf": [branch, guard]}) if guard else branch
            for branch, guard in zip(branches, asked, strict=True)
        ]


def _dependent(place: LocatedSchema) -> Iterable[list[LocatedSchema]]:
    """What holds only where a member is there: either it is absent, or the rest holds too."""
    for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
        for name in keyword_values.read_object(place, keyword):
            absent = place.with_schema({"properties": {name: False}})
            part = place.child(keyword, name)
            if part.schema in (True, []) or (keyword == "dependentSchemas" and part.schema == {}):
                continue
            if isinstance(part.schema, list) and keyword != "dependentSchemas":
                needed = keyword_values.read_names(place.with_schema({"required": part.schema}), "required")
                yield [absent, place.with_schema({"required": [name, *needed]})]
            elif keyword == "dependentRequired":
                raise place.error(keyword, "must hold lists of names.")
            else:
                there = place.with_schema({"required": [name]})
                yield [absent, part.with_schema({"allOf": [there, part]})]
