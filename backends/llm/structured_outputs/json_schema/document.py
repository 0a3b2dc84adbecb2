"""The caller's schema as a document: locations of subschemas, and resolution of references.

Source: JSON Schema core, https://json-schema.org/draft/2020-12/json-schema-core, and the drafts before it.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from backends.llm.structured_outputs.json_schema.keywords import SINGLE_SUBSCHEMA, SUBSCHEMA_LISTS, SUBSCHEMA_MAPS

_MAX_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True, eq=False)
class SchemaResource:
    """The base of references: the whole schema, or a subschema that has an `$id` of its own."""

    schema: Any
    pointer: str
    uri: str


@dataclass(frozen=True, slots=True, eq=False)
class LocatedSchema:
    """A schema with its location in the document: a JSON pointer and a resource.

    A schema that was composed from others contains `LocatedSchema`s as its subschemas.
    """

    schema: Any
    pointer: str
    resource: SchemaResource

    def child(self, *keys: str | int) -> "LocatedSchema":
        """Return the subschema at `keys`."""
        schema, pointer, resource = self.schema, self.pointer, self.resource
        for key in keys:
            schema = schema[key]
            if isinstance(schema, LocatedSchema):
                schema, pointer, resource = schema.schema, schema.pointer, schema.resource
                continue
            pointer = f"{pointer}/{escape_pointer(key)}"
            resource = _resource_of(schema, pointer, resource)
        return LocatedSchema(schema, pointer, resource)

    def with_schema(self, schema: Any) -> "LocatedSchema":
        """Return another schema with this location."""
        return LocatedSchema(schema, self.pointer, self.resource)

    def error(self, keyword: str, why: str) -> ValueError:
        """Return the error that refuses a keyword of this schema."""
        pointer = (
            self.pointer if len(self.pointer) <= _MAX_SHOWN_CHARACTERS else self.pointer[:_MAX_SHOWN_CHARACTERS] + "…"
        )
        return ValueError(f"'{keyword[:_MAX_SHOWN_CHARACTERS]}' at '{pointer}' {why}")


class SchemaDocument:
    """Resolves the references within one schema. Nothing is ever fetched."""

    def __init__(self, schema: Any) -> None:
        resource = _resource_of(schema, "#", SchemaResource(schema, "#", ""))
        self.root = LocatedSchema(schema, "#", resource)
        self._resources: dict[str, SchemaResource] | None = None
        self._anchors: dict[tuple[str, str], LocatedSchema] = {}
        self._num_dynamic_anchors: dict[str, int] = {}

    def resolve(self, located: LocatedSchema, keyword: str) -> LocatedSchema:
        """Return the schema that a keyword of `located` refers to. Raises `ValueError`."""
        reference = located.schema[keyword]
        if not isinstance(reference, str):
            raise located.error(keyword, "must be a string.")
        url, fragment = urldefrag(reference)
        resources = self._index() if keyword != "$ref" or url or fragment[:1] not in ("", "/") else {}
        if keyword == "$recursiveRef" and (reference != "#" or len(resources) > 1):
            raise located.error(keyword, "is supported only as '#', in a schema with a single $id.")
        if keyword == "$dynamicRef" and self._num_dynamic_anchors.get(fragment, 0) > 1:
            raise located.error(keyword, f"could lead to several schemas of the $dynamicAnchor '{fragment[:64]}'.")
        resource: SchemaResource | None = located.resource
        if url:
            resource = resources.get(urljoin(located.resource.uri, url))
            if resource is None:
                raise located.error(keyword, f"refers to '{reference[:128]}', which is not part of this schema.")
        assert resource is not None
        if not fragment.startswith("/"):
            found = LocatedSchema(resource.schema, resource.pointer, resource) if not fragment else None
            found = found or self._anchors.get((resource.uri, unquote(fragment)))
        else:
            found = _resolve_pointer(resource, fragment)
        if found is None or not isinstance(found.schema, dict | bool):
            raise located.error(keyword, f"refers to '{reference[:128]}', where there is no schema.")
        return found

    def _index(self) -> dict[str, SchemaResource]:
        """Find the resources and anchors, the first time that a reference needs them."""
        if self._resources is not None:
            return self._resources
        first = self.root.resource
        self._resources = {first.uri: first}
        pending = [self.root]
        while pending:
            located = pending.pop()
            schema = located.schema
            if not isinstance(schema, dict):
                continue
            if located.resource.schema is schema:
                self._resources.setdefault(located.resource.uri, located.resource)
            for keyword in ("$anchor", "$dynamicAnchor", "$id", "id"):
                name = schema.get(keyword)
                if isinstance(name, str) and (keyword in ("$anchor", "$dynamicAnchor") or name.startswith("#")):
                    self._anchors.setdefault((located.resource.uri, name.removeprefix("#")), located)
                    if keyword == "$dynamicAnchor":
                        self._num_dynamic_anchors[name] = self._num_dynamic_anchors.get(name, 0) + 1
            for keyword, value in schema.items():
                if keyword in SUBSCHEMA_LISTS and isinstance(value, list):
                    pending += [located.child(keyword, number) for number in range(len(value))]
                elif keyword in SINGLE_SUBSCHEMA:
                    pending.append(located.child(keyword))
                elif keyword in SUBSCHEMA_MAPS and isinstance(value, dict):
                    pending += [located.child(keyword, name) for name in value]
        return self._resources


def _resource_of(schema: Any, pointer: str, resource: SchemaResource) -> SchemaResource:
    """Return the resource of a schema within `resource`: a new one if it has an `$id`."""
    name = schema.get("$id") if isinstance(schema, dict) else None
    if not isinstance(name, str) or name.startswith("#") or not name:
        return resource
    try:
        return SchemaResource(schema, pointer, urljoin(resource.uri, urldefrag(name).url))
    except ValueError:  # the `$id` is not a URL
        return resource


def _resolve_pointer(resource: SchemaResource, fragment: str) -> LocatedSchema | None:
    located = LocatedSchema(resource.schema, resource.pointer, resource)
    for part in unquote(fragment).split("/")[1:]:
        key: str | int = part.replace("~1", "/").replace("~0", "~")
        schema = located.schema
        if isinstance(schema, list) and part.isdecimal() and len(part) < 8 and int(part) < len(schema):
            key = int(part)
        elif not isinstance(schema, dict) or key not in schema:
            return None
        located = located.child(key)
    return located


def escape_pointer(key: str | int) -> str:
    """Return a key in the notation of JSON pointers (RFC 6901)."""
    return str(key).replace("~", "~0").replace("/", "~1")
