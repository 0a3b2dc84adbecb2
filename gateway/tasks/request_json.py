"""Convert requests of tasks to JSON and back. Bytes and attachments are stored as files, and the JSON has their ids."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias

from gateway.errors import GatewayError
from gateway.files.file_store import FileStore
from gateway.operations.operation import TaskOperation
from gateway.operations.recording import Attachment
from gateway.operations.registry import OPERATIONS

Attach: TypeAlias = Callable[[str], Attachment]
"""Returns the attachment that reads the file with this id."""

_CONTENT_TYPE = "application/octet-stream"


async def serialize(request: TaskOperation, owner: str, files: FileStore) -> dict[str, Any]:
    """Return the fields of `request` as JSON, and store its bytes. Equal requests of one owner give equal JSON.

    Raises `StorageFull`, and `Overloaded` where the store does not answer.
    """

    async def to_json(value: Any, key: str = "attachment") -> Any:
        if isinstance(value, Attachment):
            return {key: await _store(value, owner, files)}
        if isinstance(value, bytes):
            name = f"{owner}/{hashlib.sha256(value).hexdigest()}"
            return {"file": await files.put(value, _CONTENT_TYPE, name=name)}
        return [await to_json(part) for part in value] if isinstance(value, tuple) else value

    return {
        _stored_name(field): await to_json(
            getattr(request, field.name), "file" if field.metadata.get("in_memory") else "attachment"
        )
        for field in dataclasses.fields(request)
    }


async def _store(attachment: Attachment, owner: str, files: FileStore) -> str:
    """Store an attachment in constant memory, and return the id of its file."""
    digest, size = hashlib.sha256(), 0
    async with aclosing(attachment.chunks()) as chunks:
        async for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
    async with aclosing(attachment.chunks()) as chunks:
        return await files.put_chunks(chunks, size, _CONTENT_TYPE, name=f"{owner}/{digest.hexdigest()}")


async def deserialize(
    kind: str, stored: Mapping[str, Any], files: FileStore, attach: Attach | None = None
) -> TaskOperation:
    """Return the request that `serialize` converted; `kind` is the name of its operation.

    `attach` returns the attachment that reads a stored file; the file must exist. Raises `FileNotFound`, `Overloaded`,
    and `GatewayError` for JSON that this version cannot read.
    """

    async def from_json(value: Any) -> Any:
        if isinstance(value, dict) and "attachment" in value:
            await files.size(value["attachment"])
            if attach is None:
                raise TypeError("it has an attachment")
            return attach(value["attachment"])
        if isinstance(value, dict):
            return await files.read(value["file"])
        return tuple([await from_json(part) for part in value]) if isinstance(value, list) else value

    try:
        operation = OPERATIONS[kind]
        if not issubclass(operation, TaskOperation):
            raise TypeError(f"{kind!r} cannot be a task")
        names = {_stored_name(field): field.name for field in dataclasses.fields(operation)}
        return operation(**{names.get(name, name): await from_json(value) for name, value in stored.items()})
    except (KeyError, TypeError) as error:
        raise GatewayError(f"This version of the gateway cannot read the task: {error}.") from None


def _stored_name(field: "dataclasses.Field[Any]") -> str:
    """Return the name of a field in databases, which stays when the field is renamed."""
    name: str = field.metadata.get("stored_name", field.name)
    return name
