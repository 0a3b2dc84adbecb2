"""The schema of a caller, and where its references lead."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from backends.llm.structures.schemas.keywords import LISTS_OF_SCHEMAS, NAMED_SCHEMAS, ONE_SCHEMA

_MOST_SHOWN = 200


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """A schema in which references begin: the whole one, and each part of it that has an `$id` of its own."""

    schema: Any
    pointer: str
    uri: str


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A schema, and where it stands. Schemas that are made of others hold the places of those."""

    schema: Any
    pointer: str
    resource: Resource

    def inside(self, *keys: str | int) -> "Place":
        """Return what stands behind `keys`."""
        schema, pointer, resource = self.schema, self.pointer, self.resource
        for key in keys:
            schema = schema[key]
            if isinstance(schema, Place):
                schema, pointer, resource = schema.schema, schema.pointer, schema.resource
                continue
            pointer = f"{pointer}/{escaped(key)}"
            resource = _entered(schema, pointer, resource)
        return Place(schema, pointer, resource)

    def made(self, schema: Any) -> "Place":
        """Return a schema that stands for something at this place."""
        return Place(schema, self.pointer, self.resource)

    def refused(self, keyword: str, why: str) -> ValueError:
        """Return the refusal of a keyword of this schema."""
        pointer = self.pointer if len(self.pointer) <= _MOST_SHOWN else self.pointer[:_MOST_SHOWN] + "…"
        return ValueError(f"'{keyword[:_MOST_SHOWN]}' at '{pointer}' {why}")


class Document:
    """Resolves the references of one schema, which lead nowhere else: nothing is ever fetched."""

    def __init__(self, schema: Any) -> None:
        resource = _entered(schema, "#", Resource(schema, "#", ""))
        self.start = Place(schema, "#", resource)
        self._resources: dict[str, Resource] | None = None
        self._anchors: dict[tuple[str, str], Place] = {}
        self._dynamic: dict[str, int] = {}

    def target(self, place: Place, keyword: str) -> Place:
        """Return the schema that `place` refers to by a keyword. Raises `ValueError`."""
        reference = place.schema[keyword]
        if not isinstance(reference, str):
            raise place.refused(keyword, "must be a string.")
        url, fragment = urldefrag(reference)
        resources = self._index() if keyword != "$ref" or url or fragment[:1] not in ("", "/") else {}
        if keyword == "$recursiveRef" and (reference != "#" or len(resources) > 1):
            raise place.refused(keyword, "is followed as '#' in a schema with one $id only.")
        if keyword == "$dynamicRef" and self._dynamic.get(fragment, 0) > 1:
            raise place.refused(keyword, f"could lead to several schemas of the $dynamicAnchor '{fragment[:64]}'.")
        resource: Resource | None = place.resource
        if url:
            resource = resources.get(urljoin(place.resource.uri, url))
            if resource is None:
                raise place.refused(keyword, f"refers to '{reference[:128]}', which is not part of this schema.")
        assert resource is not None
        if not fragment.startswith("/"):
            found = Place(resource.schema, resource.pointer, resource) if not fragment else None
            found = found or self._anchors.get((resource.uri, unquote(fragment)))
        else:
            found = _at(resource, fragment)
        if found is None or not isinstance(found.schema, dict | bool):
            raise place.refused(keyword, f"refers to '{reference[:128]}', where no schema stands.")
        return found

    def _index(self) -> dict[str, Resource]:
        """Find the resources and anchors, once, where a reference needs them."""
        if self._resources is not None:
            return self._resources
        first = self.start.resource
        self._resources = {first.uri: first}
        waiting = [self.start]
        while waiting:
            place = waiting.pop()
            schema = place.schema
            if not isinstance(schema, dict):
                continue
            if place.resource.schema is schema:
                self._resources.setdefault(place.resource.uri, place.resource)
            for keyword in ("$anchor", "$dynamicAnchor", "$id", "id"):
                name = schema.get(keyword)
                if isinstance(name, str) and (keyword in ("$anchor", "$dynamicAnchor") or name.startswith("#")):
                    self._anchors.setdefault((place.resource.uri, name.removeprefix("#")), place)
                    if keyword == "$dynamicAnchor":
                        self._dynamic[name] = self._dynamic.get(name, 0) + 1
            for keyword, value in schema.items():
                if keyword in LISTS_OF_SCHEMAS and isinstance(value, list):
                    waiting += [place.inside(keyword, number) for number in range(len(value))]
                elif keyword in ONE_SCHEMA:
                    waiting.append(place.inside(keyword))
                elif keyword in NAMED_SCHEMAS and isinstance(value, dict):
                    waiting += [place.inside(keyword, name) for name in value]
        return self._resources


def _entered(schema: Any, pointer: str, resource: Resource) -> Resource:
    """The resource of a schema within `resource`: itself, where it has an `$id`."""
    name = schema.get("$id") if isinstance(schema, dict) else None
    if not isinstance(name, str) or name.startswith("#") or not name:
        return resource
    try:
        return Resource(schema, pointer, urljoin(resource.uri, urldefrag(name).url))
    except ValueError:  # no URL
        return resource


def _at(resource: Resource, fragment: str) -> Place | None:
    place = Place(resource.schema, resource.pointer, resource)
    for part in unquote(fragment).split("/")[1:]:
        key: str | int = part.replace("~1", "/").replace("~0", "~")
        here = place.schema
        if isinstance(here, list) and part.isdecimal() and len(part) < 8 and int(part) < len(here):
            key = int(part)
        elif not isinstance(here, dict) or key not in here:
            return None
        place = place.inside(key)
    return place


def escaped(key: str | int) -> str:
    """Return a key as JSON pointers have it (RFC 6901)."""
    return str(key).replace("~", "~0").replace("/", "~1")
