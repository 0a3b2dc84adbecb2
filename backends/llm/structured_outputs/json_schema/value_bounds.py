"""What is known of the values of a schema without compiling it: enough to tell the branches of `oneOf` apart."""

import math
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from backends.llm.structured_outputs.json_schema import keyword_values
from backends.llm.structured_outputs.json_schema.document import LocatedSchema, SchemaDocument
from backends.llm.structured_outputs.json_schema.keywords import REFERENCES, TYPES

_MAX_DEPTH = 4
_MAX_BRANCHES = 128
_MAX_SCHEMAS = 20_000


@dataclass(frozen=True, slots=True)
class ValueBounds:
    """Bounds of what a schema takes; whatever it takes is within them."""

    types: frozenset[str] = frozenset(TYPES)
    values: frozenset[str] | None = None
    """The only values, in their canonical form, where there are finitely many."""
    minimum: float = -math.inf
    maximum: float = math.inf
    """Of its numbers."""
    member_values: dict[str, frozenset[str]] = field(default_factory=dict)
    """Of its objects: the only values of a member, none where it must be absent."""
    known_members: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    is_closed: bool = False
    """Whether its objects have no members but those that are mentioned."""

    def intersection(self, other: "ValueBounds") -> "ValueBounds":
        """Return what both take."""
        members = dict(self.member_values)
        for name, few in other.member_values.items():
            members[name] = members[name] & few if name in members else few
        both = [few for few in (self.values, other.values) if few is not None]
        mentioned = self.known_members | other.known_members
        if self.is_closed or other.is_closed:
            mentioned = self.known_members if self.is_closed else other.known_members
        return ValueBounds(
            self.types & other.types,
            frozenset.intersection(*both) if both else None,
            max(self.minimum, other.minimum),
            min(self.maximum, other.maximum),
            members,
            mentioned,
            self.required | other.required,
            self.is_closed or other.is_closed,
        )

    def union(self, other: "ValueBounds") -> "ValueBounds":
        """Return what either takes."""
        if not self.types or not other.types:
            return self if self.types else other
        finite = self.values is not None and other.values is not None
        return ValueBounds(
            self.types | other.types,
            (self.values or frozenset()) | (other.values or frozenset()) if finite else None,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            {
                name: few | other.member_values[name]
                for name, few in self.member_values.items()
                if name in other.member_values
            },
            self.known_members | other.known_members,
            self.required & other.required,
            self.is_closed and other.is_closed,
        )


_NO_VALUES = ValueBounds(types=frozenset(), values=frozenset())


@dataclass(frozen=True, slots=True)
class BranchGuard:
    """What has to be asked of a branch besides, so that no other branch takes its values."""

    required: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    is_object_only: bool = False
    """Whether nothing but objects may be taken."""

    def schema(self) -> dict[str, Any]:
        """Return it as a schema, which is empty where nothing has to be asked."""
        asked: dict[str, Any] = {"required": list(self.required)} if self.required else {}
        if self.absent:
            asked["properties"] = dict.fromkeys(self.absent, False)
        return {**asked, "type": "object"} if self.is_object_only else asked


class BoundsAnalysis:
    """The shapes of the schemas of one document."""

    def __init__(self, document: SchemaDocument) -> None:
        self._document = document
        self._budget = _MAX_SCHEMAS

    def bounds_of(self, place: LocatedSchema, depth: int = 0, inside: frozenset[int] = frozenset()) -> ValueBounds:
        """Return the shape of a schema. Raises `ValueError` for one that is none."""
        schema = place.schema
        self._budget -= 1
        if schema is False:
            return _NO_VALUES
        if not isinstance(schema, dict) or depth > _MAX_DEPTH or id(schema) in inside or self._budget < 0:
            return ValueBounds()
        inside |= {id(schema)}
        shape = self._own(place, depth)
        for keyword in REFERENCES:
            if keyword in schema:
                shape = shape.intersection(self.bounds_of(self._document.resolve(place, keyword), depth, inside))
        for number in range(len(keyword_values.read_list(place, "allOf")) if "allOf" in schema else 0):
            shape = shape.intersection(self.bounds_of(place.child("allOf", number), depth, inside))
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                some = _NO_VALUES
                for number in range(len(keyword_values.read_list(place, keyword))):
                    some = some.union(self.bounds_of(place.child(keyword, number), depth, inside))
                shape = shape.intersection(some)
        return shape

    def _own(self, place: LocatedSchema, depth: int) -> ValueBounds:
        schema = place.schema
        types = keyword_values.read_types(place)
        few = None
        if isinstance(schema.get("enum"), list):
            few = frozenset(map(keyword_values.canonical_json, schema["enum"]))
        if "const" in schema:
            one = frozenset({keyword_values.canonical_json(schema["const"])})
            few = one if few is None else few & one
        listed = [schema["const"]] if "const" in schema else schema.get("enum")
        taken = frozenset(TYPES if types is None else ("number" if one == "integer" else one for one in types))
        if isinstance(listed, list):
            taken &= frozenset(map(keyword_values.type_of, listed))
        elif taken <= {"null", "boolean"}:
            few = frozenset({"null"} if "null" in taken else ()) | (
                {"true", "false"} if "boolean" in taken else frozenset()
            )
        members: dict[str, frozenset[str]] = {}
        properties = keyword_values.read_object(place, "properties")
        if depth < _MAX_DEPTH:
            for name in properties:
                member = self.bounds_of(place.child("properties", name), depth + 1)
                if member.values is not None:
                    members[name] = member.values
        closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
        bounds = {name: keyword_values.read_number(place, name) for name in ("minimum", "maximum")}
        return ValueBounds(
            taken,
            few,
            -math.inf if bounds["minimum"] is None else bounds["minimum"],
            math.inf if bounds["maximum"] is None else bounds["maximum"],
            members,
            frozenset(properties) | frozenset(keyword_values.read_names(place, "required")),
            frozenset(keyword_values.read_names(place, "required")),
            closed,
        )


def disambiguate(shapes: list[ValueBounds], around: ValueBounds) -> list[BranchGuard] | tuple[int, int]:
    """Return what to ask of each branch of a `oneOf`, so that a value of one is no value of another.

    `around` is what holds beside the branches. Returns the numbers of two that cannot be told apart where there are.
    """
    if len(shapes) > _MAX_BRANCHES:
        return (0, _MAX_BRANCHES)
    required: list[dict[str, None]] = [{} for _ in shapes]
    absent: list[dict[str, None]] = [{} for _ in shapes]
    objects = [False] * len(shapes)
    tag = _discriminator(shapes)
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
        BranchGuard(tuple(name for name in names if name not in shape.required), tuple(absences), only)
        for names, absences, only, shape in zip(required, absent, objects, shapes, strict=True)
    ]


def _discriminator(shapes: list[ValueBounds]) -> str | None:
    """Return a member whose values tell all objects apart, a discriminator; `required` or not."""
    for name in shapes[0].member_values:
        few = [shape.member_values.get(name, frozenset()) for shape in shapes]
        if all(few) and sum(map(len, few)) == len(frozenset[str]().union(*few)):
            return name
    return None


def _is_disjoint(a: ValueBounds, b: ValueBounds, common: frozenset[str]) -> bool:
    if a.values is not None and b.values is not None:
        return not a.values & b.values
    if common == {"number"}:
        return a.maximum < b.minimum or b.maximum < a.minimum
    return common == {"object"} and _are_disjoint_objects(a, b)


def _are_disjoint_objects(a: ValueBounds, b: ValueBounds) -> bool:
    for one, other in ((a, b), (b, a)):
        for name in one.required:
            if other.is_closed and name not in other.known_members:
                return True
            if name in other.member_values and not other.member_values[name] & one.member_values.get(
                name, other.member_values[name]
            ):
                return True
    return False


def _by_presence(a: ValueBounds, b: ValueBounds, around: ValueBounds) -> tuple[str, str] | None:
    """Return a name that `a` may not have and one that `b` may not have, each being required by the other."""
    names: list[str] = []
    for one, other in ((a, b), (b, a)):
        free = sorted(
            other.required - one.required - around.required, key=lambda name: (name in one.known_members, name)
        )
        if not free:
            return None
        names.append(free[0])
    return names[0], names[1]
