"""JSON schemas that become parts of others: their references lead to where they stand now."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urldefrag, urljoin

# What stands behind these is data, whatever it looks like.
_DATA = frozenset({"const", "enum", "default", "example", "examples"})
# And behind these stand schemas by names of the caller's.
_NAMED_SCHEMAS = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)
_ANCHORS = ("$anchor", "$dynamicAnchor")
_PLACES = frozenset({"$id", "$recursiveAnchor", *_ANCHORS})


def moved(schema: Any, root: str) -> Any:
    """Return a schema that will stand at the pointer `root` of another, without `$id`, `$anchor` and their like.

    References to those become pointers; what leads out of the schema stays as it is.
    """
    return _Moving(schema, root).part(schema, root, _Begin("", root))


class _Begin:
    """Where the references of a part begin: the whole schema, or a part with an `$id` of its own."""

    __slots__ = ("pointer", "uri")

    def __init__(self, uri: str, pointer: str) -> None:
        self.uri, self.pointer = uri, pointer

    def entered(self, schema: Mapping[str, Any], here: str) -> "_Begin":
        name = schema.get("$id")
        if not isinstance(name, str) or not name or name.startswith("#"):
            return self
        return _Begin(_joined(self.uri, urldefrag(name).url), here)


class _Moving:
    def __init__(self, schema: Any, root: str) -> None:
        self._schema, self._root = schema, root
        self._places: dict[str, str] | None = None

    def part(self, part: Any, here: str, begin: _Begin) -> Any:
        if isinstance(part, list):
            return [self.part(item, f"{here}/{number}", begin) for number, item in enumerate(part)]
        if not isinstance(part, Mapping):
            return part
        begin = begin.entered(part, here)
        made: dict[str, Any] = {}
        for key, value in part.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                made.update(self._reference(key, value, begin))
            elif key == "$recursiveRef" and value == "#" and "$ref" not in part:
                made["$ref"] = begin.pointer
            elif key in _NAMED_SCHEMAS and isinstance(value, Mapping):
                inside = f"{here}/{key}"
                made[key] = {name: self.part(one, f"{inside}/{_escaped(name)}", begin) for name, one in value.items()}
            elif key not in _PLACES:
                made[key] = value if key in _DATA else self.part(value, f"{here}/{_escaped(key)}", begin)
        return made

    def _reference(self, key: str, reference: str, begin: _Begin) -> dict[str, str]:
        if key == "$ref" and (reference == "#" or reference.startswith("#/")):
            return {"$ref": begin.pointer + reference[1:]}
        url, fragment = urldefrag(_joined(begin.uri, reference))
        if self._places is None:
            self._places = dict(_places(self._schema, self._root, _Begin("", self._root)))
        if fragment and not fragment.startswith("/"):
            pointer = self._places.get(f"{url}#{fragment}")
        else:
            start = self._places.get(f"{url}#")
            pointer = None if start is None else start + fragment
        return {key: reference} if pointer is None else {"$ref": pointer}


def _places(part: Any, here: str, begin: _Begin) -> Iterator[tuple[str, str]]:
    """The addresses of all parts that have one, and where those stand."""
    if isinstance(part, list):
        for number, item in enumerate(part):
            yield from _places(item, f"{here}/{number}", begin)
    if not isinstance(part, Mapping):
        return
    begin = begin.entered(part, here)
    if begin.pointer == here:
        yield f"{begin.uri}#", here
    name = part.get("$id")
    names = [part[key] for key in _ANCHORS if isinstance(part.get(key), str)]
    names += [name[1:]] if isinstance(name, str) and name.startswith("#") else []
    for name in names:
        yield f"{begin.uri}#{name}", here
    for key, value in part.items():
        if key in _NAMED_SCHEMAS and isinstance(value, Mapping):
            for name, one in value.items():
                yield from _places(one, f"{here}/{key}/{_escaped(name)}", begin)
        elif key not in _DATA:
            yield from _places(value, f"{here}/{_escaped(key)}", begin)


def _joined(uri: str, reference: str) -> str:
    try:
        return urljoin(uri, reference)
    except ValueError:  # no URL
        return reference


def _escaped(name: str) -> str:
    return quote(name.replace("~", "~0").replace("/", "~1"), safe="~!$&'()*+,;=:@")
