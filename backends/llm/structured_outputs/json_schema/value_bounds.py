"""Bounds of the values that a schema accepts, without compiling it: enough to distinguish the branches of `oneOf`."""

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
    """Outer bounds of the values that a schema accepts: every accepted value is within them."""

    types: frozenset[str] = frozenset(TYPES)
    values: frozenset[str] | None = None
    """All values in canonical form, if they are finite; otherwise None."""
    minimum: float = -math.inf
    maximum: float = math.inf
    """Bounds of its numbers, as `minimum`."""
    member_values: dict[str, frozenset[str]] = field(default_factory=dict)
    """The values of a member of its objects, if they are finite; empty if the member must be absent."""
    known_members: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    is_closed: bool = False
    """True if its objects have no members but `known_members`."""

    def intersection(self, other: "ValueBounds") -> "ValueBounds":
        """Return the bounds of the values that both accept."""
        members = dict(self.member_values)
        for name, values in other.member_values.items():
            members[name] = members[name] & values if name in members else values
        both = [values for values in (self.values, other.values) if values is not None]
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
        """Return the bounds of the values that at least one accepts."""
        if not self.types or not other.types:
            return self if self.types else other
        finite = self.values is not None and other.values is not None
        return ValueBounds(
            self.types | other.types,
            (self.values or frozenset()) | (other.values or frozenset()) if finite else None,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            {
                name: values | other.member_values[name]
                for name, values in self.member_values.items()
                if name in other.member_values
            },
            self.known_members | other.known_members,
            self.required & other.required,
            self.is_closed and other.is_closed,
        )


_NO_VALUES = ValueBounds(types=frozenset(), values=frozenset())


@dataclass(frozen=True, slots=True)
class BranchGuard:
    """Requirements that a branch needs in addition, so that no other branch accepts its values."""

    required: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    is_object_only: bool = False
    """True if the branch may accept only objects."""

    def schema(self) -> dict[str, Any]:
        """Return the guard as a schema, which is empty if nothing is required."""
        schema: dict[str, Any] = {"required": list(self.required)} if self.required else {}
        if self.absent:
            schema["properties"] = dict.fromkeys(self.absent, False)
        return {**schema, "type": "object"} if self.is_object_only else schema


class BoundsAnalysis:
    """Computes bounds of the schemas of one document, in bounded work."""

    def __init__(self, document: SchemaDocument) -> None:
        self._document = document
        self._budget = _MAX_SCHEMAS

    def bounds_of(self, located: LocatedSchema, depth: int = 0, ancestors: frozenset[int] = frozenset()) -> ValueBounds:
        """Return the bounds of a schema. Raises `ValueError` for an invalid schema."""
        schema = located.schema
        self._budget -= 1
        if schema is False:
            return _NO_VALUES
        if not isinstance(schema, dict) or depth > _MAX_DEPTH or id(schema) in ancestors or self._budget < 0:
            return ValueBounds()
        ancestors |= {id(schema)}
        bounds = self._own_bounds(located, depth)
        for keyword in REFERENCES:
            if keyword in schema:
                bounds = bounds.intersection(self.bounds_of(self._document.resolve(located, keyword), depth, ancestors))
        for number in range(len(keyword_values.read_list(located, "allOf")) if "allOf" in schema else 0):
            bounds = bounds.intersection(self.bounds_of(located.child("allOf", number), depth, ancestors))
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                either = _NO_VALUES
                for number in range(len(keyword_values.read_list(located, keyword))):
                    either = either.union(self.bounds_of(located.child(keyword, number), depth, ancestors))
                bounds = bounds.intersection(either)
        return bounds

    def _own_bounds(self, located: LocatedSchema, depth: int) -> ValueBounds:
        schema = located.schema
        types = keyword_values.read_types(located)
        values = None
        if isinstance(schema.get("enum"), list):
            values = frozenset(map(keyword_values.canonical_json, schema["enum"]))
        if "const" in schema:
            one = frozenset({keyword_values.canonical_json(schema["const"])})
            values = one if values is None else values & one
        listed = [schema["const"]] if "const" in schema else schema.get("enum")
        types_taken = frozenset(TYPES if types is None else ("number" if one == "integer" else one for one in types))
        if isinstance(listed, list):
            types_taken &= frozenset(map(keyword_values.type_of, listed))
        elif types_taken <= {"null", "boolean"}:
            values = frozenset({"null"} if "null" in types_taken else ()) | (
                {"true", "false"} if "boolean" in types_taken else frozenset()
            )
        members: dict[str, frozenset[str]] = {}
        properties = keyword_values.read_object(located, "properties")
        if depth < _MAX_DEPTH:
            for name in properties:
                member = self.bounds_of(located.child("properties", name), depth + 1)
                if member.values is not None:
                    members[name] = member.values
        is_closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
        limits = {name: keyword_values.read_number(located, name) for name in ("minimum", "maximum")}
        return ValueBounds(
            types_taken,
            values,
            -math.inf if limits["minimum"] is None else limits["minimum"],
            math.inf if limits["maximum"] is None else limits["maximum"],
            members,
            frozenset(properties) | frozenset(keyword_values.read_names(located, "required")),
            frozenset(keyword_values.read_names(located, "required")),
            is_closed,
        )


def disambiguate(branches: list[ValueBounds], context: ValueBounds) -> list[BranchGuard] | tuple[int, int]:
    """Return a guard for each branch of a `oneOf`, so that no value matches two of them.

    `context` are the bounds of the value outside the `oneOf`. If two branches cannot be distinguished, return their
    numbers.
    """
    if len(branches) > _MAX_BRANCHES:
        return (0, _MAX_BRANCHES)
    required: list[dict[str, None]] = [{} for _ in branches]
    absent: list[dict[str, None]] = [{} for _ in branches]
    objects = [False] * len(branches)
    tag = _discriminator(branches)
    for one, other in combinations(range(len(branches)), 2):
        a, b = branches[one], branches[other]
        common = a.types & b.types & context.types
        if not common or _is_disjoint(a, b, common):
            continue
        if "object" not in common:
            return (one, other)
        if common != {"object"}:  # any other value could match both
            objects[one] = objects[other] = True
        if tag is not None:
            required[one][tag] = required[other][tag] = None
        elif not _are_disjoint_objects(a, b):
            found = _by_presence(a, b, context)
            if found is None:
                return (one, other)
            absent[one][found[0]] = absent[other][found[1]] = None
    return [
        BranchGuard(tuple(name for name in names if name not in bounds.required), tuple(absences), only)
        for names, absences, only, bounds in zip(required, absent, objects, branches, strict=True)
    ]


def _discriminator(branches: list[ValueBounds]) -> str | None:
    """Return a discriminator: a member whose values differ in all branches, required or not; None if there is none."""
    for name in branches[0].member_values:
        values = [bounds.member_values.get(name, frozenset()) for bounds in branches]
        if all(values) and sum(map(len, values)) == len(frozenset[str]().union(*values)):
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


def _by_presence(a: ValueBounds, b: ValueBounds, context: ValueBounds) -> tuple[str, str] | None:
    """Return a name that `a` must not have and one that `b` must not have, each required by the other branch."""
    names: list[str] = []
    for one, other in ((a, b), (b, a)):
        free = sorted(
            other.required - one.required - context.required, key=lambda name: (name in one.known_members, name)
        )
        if not free:
            return None
        names.append(free[0])
    return names[0], names[1]
