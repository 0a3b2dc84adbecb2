"""JSON schemas that become parts of others: their references lead to where they stand now."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Optional
from urllib.parse import quote, urldefrag, urljoin

from gateway.errors import InvalidRequest

# What stands behind these is data, whatever it looks like.
_DATA = frozenset({"const", "enum", "default", "example", "examples"})
# And behind these stand schemas by names of the caller's.
_NAMED_SCHEMAS = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)
_ANCHORS = ("$anchor", "$dynamicAnchor")
_PLACES = frozenset({"$id", "$recursiveAnchor", *_ANCHORS})
_LONGEST = 512
"""Characters of a pointer that takes the place of a name, and of addresses that are joined: there may be thousands."""

_MOST_NAMES = 500
"""References by names, in one schema; more stay as they are."""
_MOST_PLACES = 4_000
"""What has a name, in one schema."""
_MOST_WRITTEN = 65_536
"""Characters of all pointers to parts of one schema that take the place of names and of `#`."""


class _Here(NamedTuple):
    """A place in a schema. It is written as a pointer only where one is needed."""

    before: Optional["_Here"]
    key: str

    def pointer(self) -> str | None:
        """Return the pointer; None for one that is too long."""
        keys, place, room = [], self, _LONGEST
        while place.before is not None:
            room -= len(place.key)
            if room < 0:
                return None
            keys.append(quote(place.key.replace("~", "~0").replace("/", "~1"), safe="~!$&'()*+,;=:@"))
            place = place.before
        return "/".join([place.key, *reversed(keys)])


class _Begin:
    """Where the references of a part begin: the whole schema, or a part with an `$id` of its own."""

    __slots__ = ("_around", "_name", "_pointer", "_uri", "here")

    def __init__(self, here: _Here, around: Optional["_Begin"] = None, name: str = "") -> None:
        self.here, self._around, self._name = here, around, name
        self._uri: str | None = None if around else ""
        self._pointer: str | None = None

    def uri(self) -> str:
        """Return the address of the part."""
        if self._uri is None:
            assert self._around is not None
            uri, _ = _joined(self._around.uri(), self._name)
            self._uri = uri if len(uri) <= 2 * _LONGEST else f"\0{id(self)}"  # by which nobody can call it
        return self._uri

    def pointer(self) -> str | None:
        """Return the pointer to the part; None for one that is too long."""
        if self._pointer is None:
            self._pointer = self.here.pointer() or ""
        return self._pointer or None

    def entered(self, schema: Mapping[str, Any], here: _Here) -> "_Begin":
        """Return where the references of a schema within this part begin."""
        name = schema.get("$id")
        if not isinstance(name, str) or not name or name.startswith("#"):
            return self
        return _Begin(here, self, name)


def moved(schema: Any, root: str, param: str) -> Any:
    """Return a schema that will stand at the pointer `root` of another, without `$id`, `$anchor` and their like.

    It came in the caller's field `param`.

    References to those become pointers; what leads out of the schema stays as it is. Raises `InvalidRequest` where
    these pointers become much longer than what they are written for.
    """
    return _Moving(schema, root, param).part(schema, _Begin(_Here(None, root)))


class _Moving:
    def __init__(self, schema: Any, root: str, param: str) -> None:
        self._schema, self._root, self._param = schema, root, param
        self._places: dict[str, _Here] | None = None
        self._left = _MOST_NAMES
        self._room = _MOST_WRITTEN

    def part(self, part: Any, begin: _Begin, here: _Here | None = None) -> Any:
        here = here or begin.here
        if isinstance(part, list):
            return [self.part(item, begin, _Here(here, str(number))) for number, item in enumerate(part)]
        if not isinstance(part, Mapping):
            return part
        begin = begin.entered(part, here)
        made: dict[str, Any] = {}
        for key, value in part.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                made.update(self._reference(key, value, begin))
            elif key == "$recursiveRef" and value == "#" and "$ref" not in part:
                made["$ref"] = self._written(begin.pointer() or value)
            elif key in _NAMED_SCHEMAS and isinstance(value, Mapping):
                inside = _Here(here, key)
                made[key] = {name: self.part(one, begin, _Here(inside, name)) for name, one in value.items()}
            elif key not in _PLACES:
                made[key] = value if key in _DATA else self.part(value, begin, _Here(here, key))
        return made

    def _reference(self, key: str, reference: str, begin: _Begin) -> dict[str, str]:
        if key == "$ref" and (reference == "#" or reference.startswith("#/")):
            pointer, rest = begin.pointer(), reference[1:]
        else:
            self._left -= 1
            if self._left < 0:
                return {key: reference}
            url, fragment = _joined(begin.uri(), reference)
            named = fragment and not fragment.startswith("/")
            if self._places is None:
                self._places = _places(self._schema, _Begin(_Here(None, self._root)))
            found = self._places.get(f"{url}#{fragment}" if named else f"{url}#")
            pointer, rest = found and found.pointer(), "" if named else fragment
        return {key: reference} if pointer is None else {"$ref": self._written(pointer) + rest}

    def _written(self, pointer: str) -> str:
        self._room -= max(0, len(pointer) - len(self._root))
        if self._room < 0:
            why = "The references of a schema become too long: put what they refer to into its '$defs'."
            raise InvalidRequest(why, param=self._param)
        return pointer


def _places(schema: Any, begin: _Begin) -> dict[str, _Here]:
    """The addresses of all parts that have one, and where those stand."""
    places: dict[str, _Here] = {}
    waiting = [(schema, begin.here, begin)]
    while waiting and len(places) < _MOST_PLACES:
        part, here, begin = waiting.pop()
        if isinstance(part, list):
            waiting += [(item, _Here(here, str(number)), begin) for number, item in enumerate(part)]
        if not isinstance(part, Mapping):
            continue
        begin = begin.entered(part, here)
        if begin.here is here:
            places.setdefault(f"{begin.uri()}#", here)
        name = part.get("$id")
        names = [part[key] for key in _ANCHORS if isinstance(part.get(key), str)]
        names += [name[1:]] if isinstance(name, str) and name.startswith("#") else []
        for name in names:
            places.setdefault(f"{begin.uri()}#{name}", here)
        for key, value in part.items():
            inside = _Here(here, key)
            if key in _NAMED_SCHEMAS and isinstance(value, Mapping):
                waiting += [(one, _Here(inside, name), begin) for name, one in value.items()]
            elif key not in _DATA and isinstance(value, list | Mapping):
                waiting.append((value, inside, begin))
    return places


def _joined(uri: str, reference: str) -> tuple[str, str]:
    """The address that a reference within `uri` leads to, and its fragment."""
    try:
        joined = reference if len(uri) + len(reference) > 2 * _LONGEST else urljoin(uri, reference)
        address, fragment = urldefrag(joined)
    except ValueError:  # no URL
        address, _, fragment = reference.partition("#")
    return address, fragment
