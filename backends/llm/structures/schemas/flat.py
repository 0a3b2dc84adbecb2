"""A schema with all that is said of the same value by other schemas: `allOf`, `anyOf`, references and conditions."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from backends.llm.structures.schemas import values
from backends.llm.structures.schemas.conditions import choices_of_if, choices_of_not
from backends.llm.structures.schemas.document import Document, Place
from backends.llm.structures.schemas.keywords import OWN, REFERENCES
from backends.llm.structures.schemas.members import Naming
from backends.llm.structures.schemas.shapes import Shapes, told_apart

_MOST_PARTS = 20_000


@dataclass(slots=True)
class Flat:
    """All schemas that apply to one value, through references and `allOf`."""

    own: list[Place] = field(default_factory=list)
    """Schemas whose keywords say something by themselves."""
    choices: list[list[Place]] = field(default_factory=list)
    """Of each of these lists one schema holds, or several."""
    sealed: list[Place] = field(default_factory=list)
    """Schemas with `unevaluatedProperties`, which see nothing of what stands beside them."""
    nothing: bool = False
    """Whether no value can do."""


class Flattening:
    """Flattens the schemas of one document, in bounded work."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.shapes = Shapes(document)
        self.naming = Naming(document)
        self._left = _MOST_PARTS

    def of(self, place: Place) -> Flat:
        """Return a schema flat. Raises `ValueError` for what cannot be enforced."""
        flat = Flat()
        self._add(flat, place, place, frozenset())
        return flat

    def _add(self, flat: Flat, place: Place, top: Place, inside: frozenset[int]) -> None:
        schema = place.schema
        self._left -= 1
        if self._left < 0:
            raise ValueError("the schema is too large where its references are written out.")
        if isinstance(schema, bool):
            flat.nothing |= not schema
            return
        if not isinstance(schema, dict):
            raise ValueError(f"what stands at '{place.pointer[:200]}' is no schema: an object, true or false.")
        if place is not top and schema.get("unevaluatedProperties", True) is not True:
            flat.sealed.append(place)
            return
        if OWN & schema.keys():
            flat.own.append(place)
        for keyword in REFERENCES:
            if keyword in schema:
                target = self.document.target(place, keyword)
                if id(target.schema) in inside or target.schema is schema:
                    raise place.refused(keyword, "leads back to itself: no text follows it.")
                self._add(flat, target, top, inside | {id(target.schema), id(schema)})
        if "allOf" in schema:
            for number in range(len(values.listed(place, "allOf"))):
                self._add(flat, place.inside("allOf", number), top, inside | {id(schema)})
        for choices in self._choices(place, top):
            if len(choices) == 1:
                self._add(flat, choices[0], top, inside | {id(schema)})
            else:
                flat.choices.append(choices)

    def _choices(self, place: Place, top: Place) -> Iterable[list[Place]]:
        schema = place.schema
        if "anyOf" in schema:
            yield [place.inside("anyOf", number) for number in range(len(values.listed(place, "anyOf")))]
        if "oneOf" in schema:
            yield self._one_of(place, top)
        if schema.get("not") is not None and (choices := choices_of_not(place, self.shapes.of(top))) is not None:
            yield choices
        if "if" in schema and ("then" in schema or "else" in schema):
            yield choices_of_if(place, self.shapes.of(top))
        yield from _dependent(place)

    def _one_of(self, place: Place, top: Place) -> list[Place]:
        """The branches of a `oneOf`, so that what one of them takes no other does."""
        branches = [place.inside("oneOf", number) for number in range(len(values.listed(place, "oneOf")))]
        branches = [branch for branch in branches if branch.schema is not False] or branches[:1]
        if len(branches) == 1:
            return branches
        guards = told_apart([self.shapes.of(branch) for branch in branches], self.shapes.of(top))
        if isinstance(guards, tuple):
            pointers = " and ".join(f"'{branches[number].pointer[:80]}'" for number in guards)
            raise place.refused(
                "oneOf", f"takes what matches one schema only, and {pointers} cannot be told apart: write anyOf, or "
                "give them a property with different constants."
            )  # fmt: skip
        asked = [guard.schema() for guard in guards]
        return [
            branch.made({"allOf": [branch, guard]}) if guard else branch
            for branch, guard in zip(branches, asked, strict=True)
        ]


def _dependent(place: Place) -> Iterable[list[Place]]:
    """What holds only where a member is there: either it is absent, or the rest holds too."""
    for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
        for name in values.named(place, keyword):
            absent = place.made({"properties": {name: False}})
            part = place.inside(keyword, name)
            if part.schema in (True, []) or (keyword == "dependentSchemas" and part.schema == {}):
                continue
            if isinstance(part.schema, list) and keyword != "dependentSchemas":
                needed = values.names(place.made({"required": part.schema}), "required")
                yield [absent, place.made({"required": [name, *needed]})]
            elif keyword == "dependentRequired":
                raise place.refused(keyword, "must hold lists of names.")
            else:
                there = place.made({"required": [name]})
                yield [absent, part.made({"allOf": [there, part]})]
