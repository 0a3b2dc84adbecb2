"""Requests of tasks as JSON, in which pictures are the ids of files."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

from gateway.errors import GatewayError
from gateway.files.file_store import FileStore
from gateway.operations.edit_image import EditImage
from gateway.operations.generate_image import GenerateImage

OPERATIONS_BY_KIND: Mapping[str, type[GenerateImage]] = {"generate_image": GenerateImage, "edit_image": EditImage}
"""What a task can be asked for, by its name in the database."""

_CONTENT_TYPE = "application/octet-stream"


def kind_of(request: GenerateImage) -> str:
    """Return the name of what is asked for."""
    return next(name for name, operation in OPERATIONS_BY_KIND.items() if operation is type(request))


async def serialize(request: GenerateImage, owner: str, files: FileStore) -> dict[str, Any]:
    """Return the fields of `request` as JSON, and keep its pictures. The same request of an owner is the same JSON.

    Raises `StorageFull`, and `Overloaded` where the store does not answer.
    """

    async def packed(value: Any) -> Any:
        if isinstance(value, bytes):
            name = f"{owner}/{hashlib.sha256(value).hexdigest()}"
            return {"file": await files.put(value, _CONTENT_TYPE, name=name)}
        return [await packed(part) for part in value] if isinstance(value, tuple) else value

    return {_stored_name(field): await packed(getattr(request, field.name)) for field in dataclasses.fields(request)}


async def deserialize(kind: str, packed: Mapping[str, Any], files: FileStore) -> GenerateImage:
    """Return the request that was packed. Raises `FileGone`, `Overloaded`, and `GatewayError` for what is none."""

    async def unpacked(value: Any) -> Any:
        if isinstance(value, dict):
            return await files.read(value["file"])
        return tuple([await unpacked(part) for part in value]) if isinstance(value, list) else value

    try:
        operation = OPERATIONS_BY_KIND[kind]
        names = {_stored_name(field): field.name for field in dataclasses.fields(operation)}
        return operation(**{names.get(name, name): await unpacked(value) for name, value in packed.items()})
    except (KeyError, TypeError) as error:
        raise GatewayError(f"This version of the service cannot read the task: {error}.") from None


def _stored_name(field: "dataclasses.Field[Any]") -> str:
    """Return the name of a field in databases: it stays when the field is renamed, so that older tasks can be read."""
    name: str = field.metadata.get("stored_name", field.name)
    return name
