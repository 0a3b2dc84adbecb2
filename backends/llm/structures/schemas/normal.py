"""The whole of a schema."""

from itertools import accumulate
from operator import or_
from typing import Any, Literal, cast

from backends.llm.structures.schemas import values
from backends.llm.structures.schemas.arrays import arrays
from backends.llm.structures.schemas.document import Document, Place
from backends.llm.structures.schemas.flat import Flat, Flattening
from backends.llm.structures.schemas.keywords import ARRAY, NUMBER, OBJECT, REFERENCES, SAYING, STRING
from backends.llm.structures.schemas.members import NONE, Members, own
from backends.llm.structures.schemas.objects import Closing, Objects
from backends.llm.structures.schemas.scalars import constants, numbers, strings


def normal(schema: Any) -> dict[str, Any] | Literal[True]:
    """Return a schema that the library enforces to the letter. Raises `ValueError` with keyword and place.

    Its references lead to its own `$defs`; it has no keyword but those that constrain.
    """
    if isinstance(schema, dict) and "x-guidance" in schema:
        raise ValueError("x-guidance would change what JSON is.")
    try:
        written = _Writing(Document(schema)).whole()
    except RecursionError:
        raise ValueError("the schema is nested too deeply.") from None
    if written is False:
        raise ValueError("the schema allows nothing.")
    return cast("dict[str, Any] | Literal[True]", written)


class _Writing:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._flattening = Flattening(document)
        self._objects = Objects(self._flattening, self._schema)
        self._numbers: dict[int, str] = {}
        self._waiting: list[tuple[str, Place]] = []

    def whole(self) -> Any:
        written = self._schema(self._document.start)
        definitions = {}
        while self._waiting:
            name, place = self._waiting.pop()
            definitions[name] = self._schema(place)
        return {**written, "$defs": definitions} if definitions and isinstance(written, dict) else written

    def _schema(self, place: Place, around: Members = NONE, rest: Any = None) -> Any:
        """Write a schema of an object of which `around` is said beside it; `rest` is asked of all other members.

        Without a `rest` the object is closed where it names members and says nothing of others.
        """
        if around == NONE and rest is None:
            place = self._alone(place)
            if _reference_alone(place):
                return self._reference(self._target(place))
        if place.schema is False or (place.schema is True and around == NONE and rest is None):
            return place.schema
        flat = self._flattening.of(place)
        if flat.nothing:
            return False
        if isinstance(place.schema, dict) and place.schema.get("unevaluatedProperties", True) is not True:
            around, rest = NONE, self._schema(place.inside("unevaluatedProperties"))
        return self._together(flat, around, rest)

    def _together(self, flat: Flat, around: Members, rest: Any) -> Any:
        about = ("additionalProperties",) if rest is not None else ("additionalProperties", "unevaluatedProperties")
        for one in flat.own:
            around |= own(one, about)
        around |= self._flattening.naming.of_all(flat.sealed)
        of_choices = [self._flattening.naming.of_all(choices) for choices in flat.choices]
        closing = None if flat.choices else _closing(flat, around, rest)
        last = next((one for one in reversed(flat.own) if _is_object(one)), None)
        parts = [self._own(one, closing if one is last else None) for one in flat.own]
        if closing is not None and last is None and not any("type" in one.schema for one in flat.own):
            empty = self._document.start.made({})
            parts.append(self._own(empty, closing))
        parts += [self._schema(one) for one in flat.sealed]
        before = list(accumulate(of_choices, or_, initial=around))
        after = list(accumulate(reversed(of_choices), or_, initial=NONE))[::-1]
        for number, choices in enumerate(flat.choices):
            beside = before[number] | after[number + 1]
            written = [self._schema(choice, beside, rest) for choice in choices]
            written = [one for one in written if one is not False]
            parts.append(True if True in written else {"anyOf": written} if written else False)
        return _all(parts)

    def _own(self, place: Place, closing: Closing | None) -> Any:
        """Write what the keywords of a schema say by themselves."""
        schema, out = place.schema, {}
        types = values.types(place)
        if types is not None:
            out["type"] = types[0] if len(types) == 1 else types
        constants(place, out)
        if schema.keys() & NUMBER:
            numbers(place, types, out)
        more: list[Any] = strings(place, out) if schema.keys() & STRING else []
        if schema.keys() & ARRAY and "array" in (types or ["array"]):
            arrays(place, self._schema, self._flattening.shapes.of, out)
            more += [{"anyOf": out.pop("anyOf")}] if "anyOf" in out else []
        if (schema.keys() & OBJECT or closing is not None) and "object" in (types or ["object"]):
            self._objects.write(place, closing, out)
            more += [{"anyOf": out.pop("anyOf")}] if "anyOf" in out else []
        return _all([out, *more])

    def _alone(self, place: Place) -> Place:
        """Go on to the only schema of an `allOf` that says nothing else."""
        while isinstance(place.schema, dict) and place.schema.keys() & SAYING == {"allOf"}:
            if len(values.listed(place, "allOf")) > 1:
                break
            place = place.inside("allOf", 0)
        return place

    def _target(self, place: Place) -> Place:
        """Follow a schema that is nothing but a reference, to one that is more. Raises `ValueError`."""
        seen = set()
        first = place
        while keyword := _reference_alone(place):
            if id(place.schema) in seen:
                raise first.refused(keyword, "leads back to itself: no text follows it.")
            seen.add(id(place.schema))
            place = self._alone(self._document.target(place, keyword))
        return place

    def _reference(self, place: Place) -> Any:
        if isinstance(place.schema, bool):
            return place.schema
        name = self._numbers.get(id(place.schema))
        if name is None:
            name = self._numbers[id(place.schema)] = str(len(self._numbers))
            self._waiting.append((name, place))
        return {"$ref": f"#/$defs/{name}"}


def _reference_alone(place: Place) -> str | None:
    """The keyword of a schema that is nothing but a reference; None for every other."""
    said = place.schema.keys() & SAYING if isinstance(place.schema, dict) else ()
    return next(iter(said)) if len(said) == 1 and said <= {*REFERENCES} else None


def _is_object(place: Place) -> bool:
    return "object" in (values.types(place) or ["object"])


def _closing(flat: Flat, members: Members, rest: Any) -> Closing | None:
    """How objects are closed; None where they stay open."""
    if any("const" in one.schema or "enum" in one.schema for one in flat.own):
        return None
    if rest is not None:
        return None if members.rest else Closing(tuple(sorted(members.named)), tuple(sorted(members.patterns)), rest)
    least = max((values.whole(one, "minProperties") or 0 for one in flat.own), default=0)
    return Closing(tuple(sorted(members.known))) if members.closes and least <= len(members.known) else None


def _all(parts: list[Any]) -> Any:
    """All of some schemas that are normal."""
    if any(part is False for part in parts):
        return False
    parts = [part for part in parts if part is not True and part != {}]
    if not parts:
        return True
    return parts[0] if len(parts) == 1 else {"allOf": parts}
