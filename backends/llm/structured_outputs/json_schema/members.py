"""Members of objects: the names that schemas of the same object mention, and whether it may have others."""

from collections.abc import Iterable
from dataclasses import dataclass

from backends.llm.structured_outputs.json_schema import keyword_values
from backends.llm.structured_outputs.json_schema.document import LocatedSchema, SchemaDocument
from backends.llm.structured_outputs.json_schema.keywords import REFERENCES


@dataclass(frozen=True, slots=True)
class MemberNames:
    """The members that one or several schemas of the same object mention."""

    named: frozenset[str] = frozenset()
    """Members with a schema."""
    known: frozenset[str] = frozenset()
    """Members with a schema, and those that are only required."""
    patterns: frozenset[str] = frozenset()
    rest: bool = False
    """True if they say anything about all other members, for example `additionalProperties: true`."""

    def __or__(self, other: "MemberNames") -> "MemberNames":
        return MemberNames(
            self.named | other.named, self.known | other.known, self.patterns | other.patterns, self.rest or other.rest
        )

    @property
    def is_closed(self) -> bool:
        """True if such objects are generated without other members."""
        return bool(self.named) and not self.rest and not self.patterns


NO_MEMBERS = MemberNames()


class MemberAnalysis:
    """Finds the members that the schemas of one document mention, with a cache."""

    def __init__(self, document: SchemaDocument) -> None:
        self._document = document
        self._found: dict[int, tuple[LocatedSchema, MemberNames]] = {}

    def members_of(self, located: LocatedSchema, ancestors: frozenset[int] = frozenset()) -> MemberNames:
        """Return the members of a schema, including the schemas that it applies to the same object."""
        schema = located.schema
        if not isinstance(schema, dict) or id(schema) in ancestors:
            return NO_MEMBERS
        known = self._found.get(id(schema))
        if known is not None:
            return known[1]
        ancestors |= {id(schema)}
        found = members_of_keywords(located, ("additionalProperties", "unevaluatedProperties"))
        for part in _in_place_subschemas(located, self._document):
            found |= self.members_of(part, ancestors)
        self._found[id(schema)] = (located, found)  # keeps the schema, whose id is the key
        return found

    def members_of_all(self, located_schemas: Iterable[LocatedSchema]) -> MemberNames:
        """Return the members of several schemas of the same object."""
        found = NO_MEMBERS
        for located in located_schemas:
            found |= self.members_of(located)
        return found


def members_of_keywords(
    located: LocatedSchema, rest_keywords: Iterable[str] = ("additionalProperties",)
) -> MemberNames:
    """Return the members that a schema's own keywords mention; `rest_keywords` are about all other members."""
    schema = located.schema
    properties = keyword_values.read_object(located, "properties")
    named = frozenset(name for name, value in properties.items() if value is not False)
    rest = any(schema.get(name, False) is not False for name in rest_keywords)
    known = named | frozenset(keyword_values.read_names(located, "required"))
    return MemberNames(named, known, frozenset(keyword_values.read_object(located, "patternProperties")), rest)


def _in_place_subschemas(located: LocatedSchema, document: SchemaDocument) -> list[LocatedSchema]:
    schema = located.schema
    parts = [document.resolve(located, keyword) for keyword in REFERENCES if keyword in schema]
    for keyword in ("allOf", "anyOf", "oneOf"):
        if keyword in schema:
            parts += [
                located.child(keyword, number) for number in range(len(keyword_values.read_list(located, keyword)))
            ]
    parts += [located.child(keyword) for keyword in ("if", "then", "else") if "if" in schema and keyword in schema]
    for keyword in ("dependentSchemas", "dependencies"):
        for name in keyword_values.read_object(located, keyword):
            part = located.child(keyword, name)
            parts.append(part.with_schema({"required": part.schema}) if isinstance(part.schema, list) else part)
    for needed in keyword_values.read_object(located, "dependentRequired").values():
        parts.append(located.with_schema({"required": needed}))
    return parts
