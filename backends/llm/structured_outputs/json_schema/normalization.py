"""The whole of a schema."""

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
    """Return a schema that the library enforces to the letter. Raises `ValueError` with keyword and place.

    Its references lead to its own `$defs`; it has no keyword but those that constrain.
    """
    if isinstance(schema, dict) and "x-guidance" in schema:
        raise ValueError("x-guidance would change what JSON is.")
    try:
        written = _Normalizer(SchemaDocument(schema)).normalize()
    except RecursionError:
        raise ValueError("the schema is nested too deeply.") from None
    if written is False:
        raise ValueError("the schema allows nothing.")
    return cast("dict[str, Any] | Literal[True]", written)


class _Normalizer:
    def __init__(self, document: SchemaDocument) -> None:
        self._document = document
        self._flattening = SchemaFlattener(document)
        self._objects = ObjectWriter(self._flattening, self._schema)
        self._numbers: dict[int, str] = {}
        self._waiting: list[tuple[str, LocatedSchema]] = []

    def normalize(self) -> Any:
        written = self._schema(self._document.root)
        definitions = {}
        while self._waiting:
            name, place = self._waiting.pop()
            definitions[name] = self._schema(place)
        return {**written, "$defs": definitions} if definitions and isinstance(written, dict) else written

    def _schema(self, place: LocatedSchema, around: MemberNames = NO_MEMBERS, rest: Any = None) -> Any:
        """Write a schema of an object of which `around` is said beside it; `rest` is asked of all other members.

        Without a `rest` the object is closed where it names members and says nothing of others.
        """
        if around == NO_MEMBERS and rest is None:
            place = self._alone(place)
            if _only_reference(place):
                return self._reference(self._target(place))
        if place.schema is False or (place.schema is True and around == NO_MEMBERS and rest is None):
            return place.schema
        flat = self._flattening.of(place)
        if flat.is_unsatisfiable:
            return False
        if isinstance(place.schema, dict) and place.schema.get("unevaluatedProperties", True) is not True:
            around, rest = NO_MEMBERS, self._schema(place.child("unevaluatedProperties"))
        return self._together(flat, around, rest)

    def _together(self, flat: FlatSchema, around: MemberNames, rest: Any) -> Any:
        about = ("additionalProperties",) if rest is not None else ("additionalProperties", "unevaluatedProperties")
        for one in flat.asserting:
            around |= members_of_keywords(one, about)
        around |= self._flattening.members.members_of_all(flat.isolated)
        of_choices = [self._flattening.members.members_of_all(choices) for choices in flat.alternatives]
        closing = None if flat.alternatives else _closing(flat, around, rest)
        last = next((one for one in reversed(flat.asserting) if _is_object(one)), None)
        parts = [self._own(one, closing if one is last else None) for one in flat.asserting]
        if closing is not None and last is None and not any("type" in one.schema for one in flat.asserting):
            empty = self._document.root.with_schema({})
            parts.append(self._own(empty, closing))
        parts += [self._schema(one) for one in flat.isolated]
        before = list(accumulate(of_choices, or_, initial=around))
        after = list(accumulate(reversed(of_choices), or_, initial=NO_MEMBERS))[::-1]
        for number, choices in enumerate(flat.alternatives):
            beside = before[number] | after[number + 1]
            written = [self._schema(choice, beside, rest) for choice in choices]
            written = [one for one in written if one is not False]
            parts.append(True if True in written else {"anyOf": written} if written else False)
        return _conjunction(parts)

    def _own(self, place: LocatedSchema, closing: UnknownMembers | None) -> Any:
        """Write what the keywords of a schema say by themselves."""
        schema, out = place.schema, {}
        types = keyword_values.read_types(place)
        if types is not None:
            out["type"] = types[0] if len(types) == 1 else types
        write_constants(place, out)
        if schema.keys() & NUMBER:
            write_number(place, types, out)
        more: list[Any] = write_string(place, out) if schema.keys() & STRING else []
        if schema.keys() & ARRAY and "array" in (types or ["array"]):
            write_array(place, self._schema, self._flattening.bounds.bounds_of, out)
            more += [{"anyOf": out.pop("anyOf")}] if "anyOf" in out else []
        if (schema.keys() & OBJECT or closing is not None) and "object" in (types or ["object"]):
            self._objects.write(place, closing, out)
            more += [{"anyOf": out.pop("anyOf")}] if "anyOf" in out else []
        return _conjunction([out, *more])

    def _alone(self, place: LocatedSchema) -> LocatedSchema:
        """Go on to the only schema of an `allOf` that says nothing else."""
        while isinstance(place.schema, dict) and place.schema.keys() & CONSTRAINING == {"allOf"}:
            if len(keyword_values.read_list(place, "allOf")) > 1:
                break
            place = place.child("allOf", 0)
        return place

    def _target(self, place: LocatedSchema) -> LocatedSchema:
        """Follow a schema that is nothing but a reference, to one that is more. Raises `ValueError`."""
        seen = set()
        first = place
        while keyword := _only_reference(place):
            if id(place.schema) in seen:
                raise first.error(keyword, "leads back to itself: no text follows it.")
            seen.add(id(place.schema))
            place = self._alone(self._document.resolve(place, keyword))
        return place

    def _reference(self, place: LocatedSchema) -> Any:
        if isinstance(place.schema, bool):
            return place.schema
        name = self._numbers.get(id(place.schema))
        if name is None:
            name = self._numbers[id(place.schema)] = str(len(self._numbers))
            self._waiting.append((name, place))
        return {"$ref": f"#/$defs/{name}"}


def _only_reference(place: LocatedSchema) -> str | None:
    """The keyword of a schema that is nothing but a reference; None for every other."""
    said = place.schema.keys() & CONSTRAINING if isinstance(place.schema, dict) else ()
    return next(iter(said)) if len(said) == 1 and said <= {*REFERENCES} else None


def _is_object(place: LocatedSchema) -> bool:
    return "object" in (keyword_values.read_types(place) or ["object"])


def _closing(flat: FlatSchema, members: MemberNames, rest: Any) -> UnknownMembers | None:
    """How objects are closed; None where they stay open."""
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
    """All of some schemas that are normal."""
    if any(part is False for part in parts):
        return False
    parts = [part for part in parts if part is not True and part != {}]
    if not parts:
        return True
    return parts[0] if len(parts) == 1 else {"allOf": parts}
