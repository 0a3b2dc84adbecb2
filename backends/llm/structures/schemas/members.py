"""Which members the objects of a schema name, and whether they may have others."""

from collections.abc import Iterable
from dataclasses import dataclass

from backends.llm.structures.schemas import values
from backends.llm.structures.schemas.document import Document, Place
from backends.llm.structures.schemas.keywords import REFERENCES


@dataclass(frozen=True, slots=True)
class Members:
    """What an object and all schemas of the same object say of its members."""

    named: frozenset[str] = frozenset()
    """Whose schema they give."""
    known: frozenset[str] = frozenset()
    """These, and those that they only require."""
    patterns: frozenset[str] = frozenset()
    rest: bool = False
    """Whether they say something of all others, `additionalProperties: true` for example."""

    def __or__(self, other: "Members") -> "Members":
        return Members(
            self.named | other.named, self.known | other.known, self.patterns | other.patterns, self.rest or other.rest
        )

    @property
    def closes(self) -> bool:
        """Whether such objects are generated without other members."""
        return bool(self.named) and not self.rest and not self.patterns


NONE = Members()


class Naming:
    """The members of the schemas of one document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._found: dict[int, tuple[Place, Members]] = {}

    def of(self, place: Place, inside: frozenset[int] = frozenset()) -> Members:
        """Return what a schema says, with all that it refers to in place."""
        schema = place.schema
        if not isinstance(schema, dict) or id(schema) in inside:
            return NONE
        known = self._found.get(id(schema))
        if known is not None:
            return known[1]
        inside |= {id(schema)}
        found = own(place, ("additionalProperties", "unevaluatedProperties"))
        for part in _in_place(place, self._document):
            found |= self.of(part, inside)
        self._found[id(schema)] = (place, found)  # keeps the schema, whose id is the key
        return found

    def of_all(self, places: Iterable[Place]) -> Members:
        """Return what several schemas of the same object say."""
        found = NONE
        for place in places:
            found |= self.of(place)
        return found


def own(place: Place, about_rest: Iterable[str] = ("additionalProperties",)) -> Members:
    """Return what the keywords of a schema itself say; `about_rest` are those that may say something of the rest."""
    schema = place.schema
    properties = values.named(place, "properties")
    named = frozenset(name for name, value in properties.items() if value is not False)
    rest = any(schema.get(name, False) is not False for name in about_rest)
    known = named | frozenset(values.names(place, "required"))
    return Members(named, known, frozenset(values.named(place, "patternProperties")), rest)


def _in_place(place: Place, document: Document) -> list[Place]:
    schema = place.schema
    parts = [document.target(place, keyword) for keyword in REFERENCES if keyword in schema]
    for keyword in ("allOf", "anyOf", "oneOf"):
        if keyword in schema:
            parts += [place.inside(keyword, number) for number in range(len(values.listed(place, keyword)))]
    parts += [place.inside(keyword) for keyword in ("if", "then", "else") if "if" in schema and keyword in schema]
    for keyword in ("dependentSchemas", "dependencies"):
        for name in values.named(place, keyword):
            part = place.inside(keyword, name)
            parts.append(part.made({"required": part.schema}) if isinstance(part.schema, list) else part)
    for needed in values.named(place, "dependentRequired").values():
        parts.append(place.made({"required": needed}))
    return parts
