"""Embeds JSON schemas in other schemas: rewrites their references to the new place."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Optional
from urllib.parse import quote, urldefrag, urljoin

from gateway.errors import InvalidRequest

# The values of these keywords are data, not schemas.
_DATA_KEYWORDS = frozenset({"const", "enum", "default", "example", "examples"})
# The values of these keywords are schemas by names of the caller.
_SCHEMA_MAP_KEYWORDS = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)
_ANCHORS = ("$anchor", "$dynamicAnchor")
_IDENTIFIERS = frozenset({"$id", "$recursiveAnchor", *_ANCHORS})
_MAX_POINTER_CHARACTERS = 512
"""Most characters of a pointer that replaces a name. URIs that are joined may have twice as many."""

_MAX_REFERENCES = 500
"""References by name in one schema that are rewritten; further ones stay as they are."""
_MAX_ANCHORS = 4_000
"""Parts with an anchor or a URI in one schema."""
_MAX_POINTERS_CHARACTERS = 65_536
"""Characters of all pointers in one schema that replace names and `#`."""


class _Location(NamedTuple):
    """A location in a schema. The JSON pointer is only built where it is needed."""

    before: Optional["_Location"]
    key: str

    def pointer(self) -> str | None:
        """Return the pointer; None for one that is too long."""
        keys, location, characters_left = [], self, _MAX_POINTER_CHARACTERS
        while location.before is not None:
            characters_left -= len(location.key)
            if characters_left < 0:
                return None
            keys.append(quote(location.key.replace("~", "~0").replace("/", "~1"), safe="~!$&'()*+,;=:@"))
            location = location.before
        return "/".join([location.key, *reversed(keys)])


class _Resource:
    """A schema resource, to which references are relative: the whole schema, or a part with an `$id`."""

    __slots__ = ("_name", "_parent", "_pointer", "_uri", "here")

    def __init__(self, here: _Location, parent: Optional["_Resource"] = None, name: str = "") -> None:
        self.here, self._parent, self._name = here, parent, name
        self._uri: str | None = None if parent else ""
        self._pointer: str | None = None

    def uri(self) -> str:
        """Return the URI of the resource."""
        if self._uri is None:
            assert self._parent is not None
            uri, _ = _resolve_uri(self._parent.uri(), self._name)
            self._uri = (
                uri if len(uri) <= 2 * _MAX_POINTER_CHARACTERS else f"\0{id(self)}"
            )  # a URI that no reference can have
        return self._uri

    def pointer(self) -> str | None:
        """Return the pointer to the resource; None for one that is too long."""
        if self._pointer is None:
            self._pointer = self.here.pointer() or ""
        return self._pointer or None

    def enter(self, schema: Mapping[str, Any], here: _Location) -> "_Resource":
        """Return the resource of a subschema: itself, or a new one where the subschema has an `$id`."""
        name = schema.get("$id")
        if not isinstance(name, str) or not name or name.startswith("#"):
            return self
        return _Resource(here, self, name)


def relocate_schema(schema: Any, root: str, param: str) -> Any:
    """Return the schema in a form that can be embedded at the pointer `root` of another schema.

    It has no `$id`, `$anchor` and similar keywords; references to these become pointers. References out of the schema
    stay as they are. `param` is the caller's field that contains the schema. Raises `InvalidRequest` if the pointers
    become too long.
    """
    return _Relocator(schema, root, param).part(schema, _Resource(_Location(None, root)))


class _Relocator:
    def __init__(self, schema: Any, root: str, param: str) -> None:
        self._schema, self._root, self._param = schema, root, param
        self._anchors: dict[str, _Location] | None = None
        self._references_left = _MAX_REFERENCES
        self._characters_left = _MAX_POINTERS_CHARACTERS

    def part(self, part: Any, begin: _Resource, here: _Location | None = None) -> Any:
        here = here or begin.here
        if isinstance(part, list):
            return [self.part(item, begin, _Location(here, str(number))) for number, item in enumerate(part)]
        if not isinstance(part, Mapping):
            return part
        begin = begin.enter(part, here)
        made: dict[str, Any] = {}
        for key, value in part.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                made.update(self._reference(key, value, begin))
            elif key == "$recursiveRef" and value == "#" and "$ref" not in part:
                made["$ref"] = self._charge_pointer(begin.pointer() or value)
            elif key in _SCHEMA_MAP_KEYWORDS and isinstance(value, Mapping):
                inside = _Location(here, key)
                made[key] = {name: self.part(one, begin, _Location(inside, name)) for name, one in value.items()}
            elif key not in _IDENTIFIERS:
                made[key] = value if key in _DATA_KEYWORDS else self.part(value, begin, _Location(here, key))
        return made

    def _reference(self, key: str, reference: str, begin: _Resource) -> dict[str, str]:
        if key == "$ref" and (reference == "#" or reference.startswith("#/")):
            pointer, rest = begin.pointer(), reference[1:]
        else:
            self._references_left -= 1
            if self._references_left < 0:
                return {key: reference}
            url, fragment = _resolve_uri(begin.uri(), reference)
            named = fragment and not fragment.startswith("/")
            if self._anchors is None:
                self._anchors = _find_anchors(self._schema, _Resource(_Location(None, self._root)))
            found = self._anchors.get(f"{url}#{fragment}" if named else f"{url}#")
            pointer, rest = found and found.pointer(), "" if named else fragment
        return {key: reference} if pointer is None else {"$ref": self._charge_pointer(pointer) + rest}

    def _charge_pointer(self, pointer: str) -> str:
        self._characters_left -= max(0, len(pointer) - len(self._root))
        if self._characters_left < 0:
            message = "The references in the schema are too long. Move the schemas that they refer to into '$defs'."
            raise InvalidRequest(message, param=self._param)
        return pointer


def _find_anchors(schema: Any, begin: _Resource) -> dict[str, _Location]:
    """Return the location of each part that has a URI or an anchor, by URI and fragment."""
    places: dict[str, _Location] = {}
    pending = [(schema, begin.here, begin)]
    while pending and len(places) < _MAX_ANCHORS:
        part, here, begin = pending.pop()
        if isinstance(part, list):
            pending += [(item, _Location(here, str(number)), begin) for number, item in enumerate(part)]
        if not isinstance(part, Mapping):
            continue
        begin = begin.enter(part, here)
        if begin.here is here:
            places.setdefault(f"{begin.uri()}#", here)
        name = part.get("$id")
        names = [part[key] for key in _ANCHORS if isinstance(part.get(key), str)]
        names += [name[1:]] if isinstance(name, str) and name.startswith("#") else []
        for name in names:
            places.setdefault(f"{begin.uri()}#{name}", here)
        for key, value in part.items():
            inside = _Location(here, key)
            if key in _SCHEMA_MAP_KEYWORDS and isinstance(value, Mapping):
                pending += [(one, _Location(inside, name), begin) for name, one in value.items()]
            elif key not in _DATA_KEYWORDS and isinstance(value, list | Mapping):
                pending.append((value, inside, begin))
    return places


def _resolve_uri(uri: str, reference: str) -> tuple[str, str]:
    """Return the URI of a reference within the resource `uri`, and its fragment."""
    try:
        joined = reference if len(uri) + len(reference) > 2 * _MAX_POINTER_CHARACTERS else urljoin(uri, reference)
        address, fragment = urldefrag(joined)
    except ValueError:  # no URL
        address, _, fragment = reference.partition("#")
    return address, fragment
