"""Normalization of a whole schema: walks it, and writes each part with `objects.py`, `arrays.py` and `scalars.py`."""

from itertools import accumulate
from operator import or_
from typing import Any, Literal, cast

from backends.llm.structured_outputs.json_schema import keyword_values
from backends.llm.structured_outputs.json_schema.arrays import write_array
from backends.llm.structured_outputs.json_schema.document import LocatedSchema, SchemaDocument
from backends.llm.structured_outputs.json_schema.flattening import FlatSchema, SchemaFlattener
from backends.llm.structured_outputs.json_schema.keywords import ARRAY, CONSTRAINING, NUMBER, OBJECT, REFERENCES, STRING
from backends.llm.structured_outputs.json_schema.members import NO_MEMBERS, MemberNames, members_of_keywords
from backends.llm.structured_outputs.json_schema.objects import ObjectWriter, UnknownMembers
from backends.llm.structured_outputs.json_schema.scalars import write_constants, write_number, write_string


def normalize_schema(schema: Any) -> dict[str, Any] | Literal[True]:
    """Return a schema that llguidance enforces exactly. Raises `ValueError` with the keyword and its location.

    The result contains only keywords that constrain values, and its references lead to its own `$defs`.
    """
    if isinstance(schema, dict) and "x-guidance" in schema:
        raise ValueError("x-guidance is not supported: it changes the syntax of JSON.")
    try:
        written = _Normalizer(SchemaDocument(schema)).normalize()
    except RecursionError:
        raise ValueError("the schema is nested too deeply.") from None
    if written is False:
        raise ValueError("the schema allows nothing.")
    return cast("dict[str, Any] | Literal[True]", written)


class _Normalizer:
    """Writes one document. Referenced schemas become definitions, so recursive schemas end."""

    def __init__(self, document: SchemaDocument) -> None:
        self._document = document
        self._flattening = SchemaFlattener(document)
        self._objects = ObjectWriter(self._flattening, self._write_schema)
        self._definition_names: dict[int, str] = {}
        self._pending_definitions: list[tuple[str, LocatedSchema]] = []

    def normalize(self) -> Any:
        """Write the root schema and every definition that it refers to. Raises `ValueError`."""
        written = self._write_schema(self._document.root)
        definitions = {}
        while self._pending_definitions:
            name, located = self._pending_definitions.pop()
            definitions[name] = self._write_schema(located)
        return {**written, "$defs": definitions} if definitions and isinstance(written, dict) else written

    def _write_schema(self, located: LocatedSchema, other_members: MemberNames = NO_MEMBERS, rest: Any = None) -> Any:
        """Write a schema. `other_members` are those that other schemas of the same object mention.

        `rest` is the normalized schema of all members that none mentions. Without it, an object that names members and
        says nothing about others is closed.
        """
        if other_members == NO_MEMBERS and rest is None:
            located = self._unwrap_all_of(located)
            if _only_reference(located):
                return self._definition_reference(self._follow_references(located))
        if located.schema is False or (located.schema is True and other_members == NO_MEMBERS and rest is None):
            return located.schema
        flat = self._flattening.flatten(located)
        if flat.is_unsatisfiable:
            return False
        if isinstance(located.schema, dict) and located.schema.get("unevaluatedProperties", True) is not True:
            other_members, rest = NO_MEMBERS, self._write_schema(located.child("unevaluatedProperties"))
        return self._write_flat(flat, other_members, rest)

    def _write_flat(self, flat: FlatSchema, other_members: MemberNames, rest: Any) -> Any:
        """Write all schemas of one value as a conjunction; parameters as in `_write_schema`."""
        rest_keywords = (
            ("additionalProperties",) if rest is not None else ("additionalProperties", "unevaluatedProperties")
        )
        for one in flat.asserting:
            other_members |= members_of_keywords(one, rest_keywords)
        other_members |= self._flattening.members.members_of_all(flat.isolated)
        members_of_choices = [self._flattening.members.members_of_all(choices) for choices in flat.alternatives]
        unknown_members = None if flat.alternatives else _close_object(flat, other_members, rest)
        last_object = next((one for one in reversed(flat.asserting) if _is_object(one)), None)
        parts = [self._write_assertions(one, unknown_members if one is last_object else None) for one in flat.asserting]
        if (
            unknown_members is not None
            and last_object is None
            and not any("type" in one.schema for one in flat.asserting)
        ):
            empty = self._document.root.with_schema({})
            parts.append(self._write_assertions(empty, unknown_members))
        parts += [self._write_schema(one) for one in flat.isolated]
        before = list(accumulate(members_of_choices, or_, initial=other_members))
        after = list(accumulate(reversed(members_of_choices), or_, initial=NO_MEMBERS))[::-1]
        for number, choices in enumerate(flat.alternatives):
            sibling_members = before[number] | after[number + 1]
            written = [self._write_schema(choice, sibling_members, rest) for choice in choices]
            written = [one for one in written if one is not False]
            parts.append(True if True in written else {"anyOf": written} if written else False)
        return _conjunction(parts)

    def _write_assertions(self, located: LocatedSchema, unknown_members: UnknownMembers | None) -> Any:
        """Write a schema's own assertions."""
        schema, written = located.schema, {}
        types = keyword_values.read_types(located)
        if types is not None:
            written["type"] = types[0] if len(types) == 1 else types
        write_constants(located, written)
        if schema.keys() & NUMBER:
            write_number(located, types, written)
        extra: list[Any] = write_string(located, written) if schema.keys() & STRING else []
        if schema.keys() & ARRAY and "array" in (types or ["array"]):
            write_array(located, self._write_schema, self._flattening.bounds.bounds_of, written)
            extra += [{"anyOf": written.pop("anyOf")}] if "anyOf" in written else []
        if (schema.keys() & OBJECT or unknown_members is not None) and "object" in (types or ["object"]):
            self._objects.write(located, unknown_members, written)
            extra += [{"anyOf": written.pop("anyOf")}] if "anyOf" in written else []
        return _conjunction([written, *extra])

    def _unwrap_all_of(self, located: LocatedSchema) -> LocatedSchema:
        """Replace a schema that is nothing but an `allOf` of one schema by that one."""
        while isinstance(located.schema, dict) and located.schema.keys() & CONSTRAINING == {"allOf"}:
            if len(keyword_values.read_list(located, "allOf")) > 1:
                break
            located = located.child("allOf", 0)
        return located

    def _follow_references(self, located: LocatedSchema) -> LocatedSchema:
        """Follow references until a schema that is more than a reference. Raises `ValueError` for a cycle."""
        seen = set()
        first = located
        while keyword := _only_reference(located):
            if id(located.schema) in seen:
                raise first.error(keyword, "refers back to itself, so no value matches it.")
            seen.add(id(located.schema))
            located = self._unwrap_all_of(self._document.resolve(located, keyword))
        return located

    def _definition_reference(self, located: LocatedSchema) -> Any:
        if isinstance(located.schema, bool):
            return located.schema
        name = self._definition_names.get(id(located.schema))
        if name is None:
            name = self._definition_names[id(located.schema)] = str(len(self._definition_names))
            self._pending_definitions.append((name, located))
        return {"$ref": f"#/$defs/{name}"}


def _only_reference(located: LocatedSchema) -> str | None:
    """Return the keyword of a schema that is nothing but a reference; None for any other schema."""
    keywords = located.schema.keys() & CONSTRAINING if isinstance(located.schema, dict) else ()
    return next(iter(keywords)) if len(keywords) == 1 and keywords <= {*REFERENCES} else None


def _is_object(located: LocatedSchema) -> bool:
    return "object" in (keyword_values.read_types(located) or ["object"])


def _close_object(flat: FlatSchema, members: MemberNames, rest: Any) -> UnknownMembers | None:
    """Return how an object is closed; None if it stays open."""
    if any("const" in one.schema or "enum" in one.schema for one in flat.asserting):
        return None
    if rest is not None:
        return (
            None
            if members.rest
            else UnknownMembers(tuple(sorted(members.named)), tuple(sorted(members.patterns)), rest)
        )
    least = max((keyword_values.read_count(one, "minProperties") or 0 for one in flat.asserting), default=0)
    return UnknownMembers(tuple(sorted(members.known))) if members.is_closed and least <= len(members.known) else None


def _conjunction(parts: list[Any]) -> Any:
    """Return the conjunction of normalized schemas."""
    if any(part is False for part in parts):
        return False
    parts = [part for part in parts if part is not True and part != {}]
    if not parts:
        return True
    return parts[0] if len(parts) == 1 else {"allOf": parts}
