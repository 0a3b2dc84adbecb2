"""What is known of the values of a schema without compiling it: enough to tell the branches of `oneOf` apart."""

import math
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from backends.llm.structures.schemas import values
from backends.llm.structures.schemas.document import Document, Place
from backends.llm.structures.schemas.keywords import REFERENCES, TYPES

_DEEPEST = 4
_MOST_BRANCHES = 128
_MOST_PLACES = 20_000


@dataclass(frozen=True, slots=True)
class Shape:
    """Bounds of what a schema takes; whatever it takes is within them."""

    types: frozenset[str] = frozenset(TYPES)
    values: frozenset[str] | None = None
    """The only values, in their canonical form, where there are finitely many."""
    least: float = -math.inf
    most: float = math.inf
    """Of its numbers."""
    members: dict[str, frozenset[str]] = field(default_factory=dict)
    """Of its objects: the only values of a member, none where it must be absent."""
    mentioned: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    closed: bool = False
    """Whether its objects have no members but those that are mentioned."""

    def all_of(self, other: "Shape") -> "Shape":
        """Return what both take."""
        members = dict(self.members)
        for name, few in other.members.items():
            members[name] = members[name] & few if name in members else few
        both = [few for few in (self.values, other.values) if few is not None]
        mentioned = self.mentioned | other.mentioned
        if self.closed or other.closed:
            mentioned = self.mentioned if self.closed else other.mentioned
        return Shape(
            self.types & other.types,
            frozenset.intersection(*both) if both else None,
            max(self.least, other.least),
            min(self.most, other.most),
            members,
            mentioned,
            self.required | other.required,
            self.closed or other.closed,
        )

    def any_of(self, other: "Shape") -> "Shape":
        """Return what either takes."""
        if not self.types or not other.types:
            return self if self.types else other
        finite = self.values is not None and other.values is not None
        return Shape(
            self.types | other.types,
            (self.values or frozenset()) | (other.values or frozenset()) if finite else None,
            min(self.least, other.least),
            max(self.most, other.most),
            {name: few | other.members[name] for name, few in self.members.items() if name in other.members},
            self.mentioned | other.mentioned,
            self.required & other.required,
            self.closed and other.closed,
        )


_NOTHING = Shape(types=frozenset(), values=frozenset())


@dataclass(frozen=True, slots=True)
class Guard:
    """What has to be asked of a branch besides, so that no other branch takes its values."""

    required: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    objects: bool = False
    """Whether nothing but objects may be taken."""

    def schema(self) -> dict[str, Any]:
        """Return it as a schema, which is empty where nothing has to be asked."""
        asked: dict[str, Any] = {"required": list(self.required)} if self.required else {}
        if self.absent:
            asked["properties"] = dict.fromkeys(self.absent, False)
        return {**asked, "type": "object"} if self.objects else asked


class Shapes:
    """The shapes of the schemas of one document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._left = _MOST_PLACES

    def of(self, place: Place, depth: int = 0, inside: frozenset[int] = frozenset()) -> Shape:
        """Return the shape of a schema. Raises `ValueError` for one that is none."""
        schema = place.schema
        self._left -= 1
        if schema is False:
            return _NOTHING
        if not isinstance(schema, dict) or depth > _DEEPEST or id(schema) in inside or self._left < 0:
            return Shape()
        inside |= {id(schema)}
        shape = self._own(place, depth)
        for keyword in REFERENCES:
            if keyword in schema:
                shape = shape.all_of(self.of(self._document.target(place, keyword), depth, inside))
        for number in range(len(values.listed(place, "allOf")) if "allOf" in schema else 0):
            shape = shape.all_of(self.of(place.inside("allOf", number), depth, inside))
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                some = _NOTHING
                for number in range(len(values.listed(place, keyword))):
                    some = some.any_of(self.of(place.inside(keyword, number), depth, inside))
                shape = shape.all_of(some)
        return shape

    def _own(self, place: Place, depth: int) -> Shape:
        schema = place.schema
        types = values.types(place)
        few = None
        if isinstance(schema.get("enum"), list):
            few = frozenset(map(values.canonical, schema["enum"]))
        if "const" in schema:
            one = frozenset({values.canonical(schema["const"])})
            few = one if few is None else few & one
        listed = [schema["const"]] if "const" in schema else schema.get("enum")
        taken = frozenset(TYPES if types is None else ("number" if one == "integer" else one for one in types))
        if isinstance(listed, list):
            taken &= frozenset(map(values.type_of, listed))
        elif taken <= {"null", "boolean"}:
            few = frozenset({"null"} if "null" in taken else ()) | (
                {"true", "false"} if "boolean" in taken else frozenset()
            )
        members: dict[str, frozenset[str]] = {}
        properties = values.named(place, "properties")
        if depth < _DEEPEST:
            for name in properties:
                member = self.of(place.inside("properties", name), depth + 1)
                if member.values is not None:
                    members[name] = member.values
        closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
        bounds = {name: values.number(place, name) for name in ("minimum", "maximum")}
        return Shape(
            taken,
            few,
            -math.inf if bounds["minimum"] is None else bounds["minimum"],
            math.inf if bounds["maximum"] is None else bounds["maximum"],
            members,
            frozenset(properties) | frozenset(values.names(place, "required")),
            frozenset(values.names(place, "required")),
            closed,
        )


def told_apart(shapes: list[Shape], around: Shape) -> list[Guard] | tuple[int, int]:
    """Return what to ask of each branch of a `oneOf`, so that a value of one is no value of another.

    `around` is what holds beside the branches. Returns the numbers of two that cannot be told apart where there are.
    """
    if len(shapes) > _MOST_BRANCHES:
        return (0, _MOST_BRANCHES)
    required: list[dict[str, None]] = [{} for _ in shapes]
    absent: list[dict[str, None]] = [{} for _ in shapes]
    objects = [False] * len(shapes)
    tag = _tag(shapes)
    for one, other in combinations(range(len(shapes)), 2):
        a, b = shapes[one], shapes[other]
        common = a.types & b.types & around.types
        if not common or _is_disjoint(a, b, common):
            continue
        if "object" not in common:
            return (one, other)
        if common != {"object"}:  # what is no object would be a value of both
            objects[one] = objects[other] = True
        if tag is not None:
            required[one][tag] = required[other][tag] = None
        elif not _are_disjoint_objects(a, b):
            found = _by_presence(a, b, around)
            if found is None:
                return (one, other)
            absent[one][found[0]] = absent[other][found[1]] = None
    return [
        Guard(tuple(name for name in names if name not in shape.required), tuple(absences), only)
        for names, absences, only, shape in zip(required, absent, objects, shapes, strict=True)
    ]


def _tag(shapes: list[Shape]) -> str | None:
    """Return a member whose values tell all objects apart, a discriminator; `required` or not."""
    for name in shapes[0].members:
        few = [shape.members.get(name, frozenset()) for shape in shapes]
        if all(few) and sum(map(len, few)) == len(frozenset[str]().union(*few)):
            return name
    return None


def _is_disjoint(a: Shape, b: Shape, common: frozenset[str]) -> bool:
    if a.values is not None and b.values is not None:
        return not a.values & b.values
    if common == {"number"}:
        return a.most < b.least or b.most < a.least
    return common == {"object"} and _are_disjoint_objects(a, b)


def _are_disjoint_objects(a: Shape, b: Shape) -> bool:
    for one, other in ((a, b), (b, a)):
        for name in one.required:
            if other.closed and name not in other.mentioned:
                return True
            if name in other.members and not other.members[name] & one.members.get(name, other.members[name]):
                return True
    return False


def _by_presence(a: Shape, b: Shape, around: Shape) -> tuple[str, str] | None:
    """Return a name that `a` may not have and one that `b` may not have, each being required by the other."""
    names: list[str] = []
    for one, other in ((a, b), (b, a)):
        free = sorted(other.required - one.required - around.required, key=lambda name: (name in one.mentioned, name))
        if not free:
            return None
        names.append(free[0])
    return names[0], names[1]
