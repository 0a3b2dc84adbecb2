"""Which members the objects of a schema name, and whether they may have others."""

from collections.abc import Iterable
from dataclasses import dataclass

from backends.llm.structured_outputs.json_schema import keyword_values
from backends.llm.structured_outputs.json_schema.document import LocatedSchema, SchemaDocument
from backends.llm.structured_outputs.json_schema.keywords import REFERENCES


@dataclass(frozen=True, slots=True)
class MemberNames:
    """What an object and all schemas of the same object say of its members."""

    named: frozenset[str] = frozenset()
    """Whose schema they give."""
    known: frozenset[str] = frozenset()
    """These, and those that they only require."""
    patterns: frozenset[str] = frozenset()
    rest: bool = False
    """Whether they say something of all others, `additionalProperties: true` for example."""

    def __or__(self, other: "MemberNames") -> "MemberNames":
        return MemberNames(
            self.named | other.named, self.known | other.known, self.patterns | other.patterns, self.rest or other.rest
        )

    @property
    def is_closed(self) -> bool:
        """Whether such objects are generated without other members."""
        return bool(self.named) and not self.rest and not self.patterns


NO_MEMBERS = MemberNames()


class MemberAnalysis:
    """The members of the schemas of one document."""

    def __init__(self, document: SchemaDocument) -> None:
        self._document = document
        self._found: dict[int, tuple[LocatedSchema, MemberNames]] = {}

    def members_of(self, place: LocatedSchema, inside: frozenset[int] = frozenset()) -> MemberNames:
        """Return what a schema says, with all that it refers to in place."""
        schema = place.schema
        if not isinstance(schema, dict) or id(schema) in inside:
            return NO_MEMBERS
        known = self._found.get(id(schema))
        if known is not None:
            return known[1]
        inside |= {id(schema)}
        found = members_of_keywords(place, ("additionalProperties", "unevaluatedProperties"))
        for part in _in_place_subschemas(place, self._document):
            found |= self.members_of(part, inside)
        self._found[id(schema)] = (place, found)  # keeps the schema, whose id is the key
        return found

    def members_of_all(self, places: Iterable[LocatedSchema]) -> MemberNames:
        """Return what several schemas of the same object say."""
        found = NO_MEMBERS
        for place in places:
            found |= self.members_of(place)
        return found


def members_of_keywords(place: LocatedSchema, about_rest: Iterable[str] = ("additionalProperties",)) -> MemberNames:
    """Return what the keywords of a schema itself say; `about_rest` are those that may say something of the rest."""
    schema = place.schema
    properties = keyword_values.read_object(place, "properties")
    named = frozenset(name for name, value in properties.items() if value is not False)
    rest = any(schema.get(name, False) is not False for name in about_rest)
    known = named | frozenset(keyword_values.read_names(place, "required"))
    return MemberNames(named, known, frozenset(keyword_values.read_object(place, "patternProperties")), rest)


def _in_place_subschemas(place: LocatedSchema, document: SchemaDocument) -> list[LocatedSchema]:
    schema = place.schema
    parts = [document.resolve(place, keyword) for keyword in REFERENCES if keyword in schema]
    for keyword in ("allOf", "anyOf", "oneOf"):
        if keyword in schema:
            parts += [place.child(keyword, number) for number in range(len(keyword_values.read_list(place, keyword)))]
    parts += [place.child(keyword) for keyword in ("if", "then", "else") if "if" in schema and keyword in schema]
    for keyword in ("dependentSchemas", "dependencies"):
        for name in keyword_values.read_object(place, keyword):
            part = place.child(keyword, name)
            parts.append(part.with_schema({"required": part.schema}) if isinstance(part.schema, list) else part)
    for needed in keyword_values.read_object(place, "dependentRequired").values():
        parts.append(place.with_schema({"required": needed}))
    return parts
