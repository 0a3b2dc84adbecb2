"""Stores generated files under names that cannot be guessed, and creates signed URLs for them that expire."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
import structlog
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore

from gateway.errors import RETRY_AFTER_SECONDS, FileNotFound, GatewayError, Overloaded, StorageFull
from gateway.files import object_stores
from gateway.files.content_types import CONTENT_TYPES, EXTENSIONS, content_type
from gateway.files.signing import Signer, load_or_create_key
from gateway.settings import Settings

if TYPE_CHECKING:
    from obstore import BytesStream, ObjectMeta

_FILE_ID = re.compile(r"[a-z2-7]{32}\.([a-z0-9]{3,4})")
_TEMPORARY_FILE = re.compile(r"[a-z2-7]{32}\.[a-z0-9]{3,4}#\d+")
"""Names of obstore's temporary files, which it renames when they are complete. A killed process leaves them."""
_TEMPORARY_FILE_AGE_SECONDS = 3600.0
_CHUNK = 256 * 1024
_SWEEP_INTERVAL_SECONDS = 600.0
_HEADROOM = 0.1
"""The share of `files_max_bytes` that a sweep frees when the store is full."""
_FULL_MESSAGES = (
    *("no space left", "os error 28", "disk quota", "os error 122", "quota exceeded"),
    *("quotaexceeded", "storagefull"),  # codes of Ceph and MinIO
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file that is read. `chunks` are its bytes from `start` to `end` (exclusive), of `size` bytes in all."""

    content_type: str
    size: int
    etag: str | None
    modified: datetime
    start: int
    end: int
    chunks: AsyncGenerator[bytes]


class FileStore:
    """Stores files in a folder or a bucket, which it opens at the first use."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = structlog.get_logger("gateway.files")
        self._stored_bytes = 0
        """Estimate of the bytes in the store: those that the last sweep left, and those stored since."""
        self._pending_bytes = 0
        """Bytes that are being stored now."""
        self._sweep_lock = asyncio.Lock()

    async def put(self, data: bytes, content_type: str, *, name: str | None = None) -> str:
        """Store `data` and return its id. A failure leaves no readable part.

        A file with a `name` replaces an earlier one of that name. The id does not reveal the name. If all files would
        exceed `files_max_bytes`, the oldest are removed first. Raises `StorageFull`, and `Overloaded` when the store
        does not respond.
        """
        return await self._put(data, len(data), content_type, name, in_parts=False)

    async def put_chunks(
        self, chunks: AsyncIterator[bytes], size: int, content_type: str, *, name: str | None = None
    ) -> str:
        """Store a file of `size` bytes that is larger than memory, as `put` does. Raises what `chunks` raises."""
        return await self._put(chunks, size, content_type, name, in_parts=True)

    async def _put(
        self, data: bytes | AsyncIterator[bytes], size: int, content_type: str, name: str | None, *, in_parts: bool
    ) -> str:
        store, signer = await self._open()
        file = f"{signer.name(name)}.{EXTENSIONS.get(content_type, 'bin')}"
        attributes: Any = None if isinstance(store, LocalStore) else {"Content-Type": content_type}
        self._pending_bytes += size
        try:
            await self._make_room()
            await _translate_errors(obstore.put_async(store, file, data, use_multipart=in_parts, attributes=attributes))
            self._stored_bytes += size
        finally:
            self._pending_bytes -= size
        return file

    async def find(self, name: str, content_type: str) -> str | None:
        """Return the id of the file with a name, None if there is none. Raises `Overloaded`."""
        _, signer = await self._open()
        file = f"{signer.name(name)}.{EXTENSIONS.get(content_type, 'bin')}"
        try:
            await self.size(file)
        except FileNotFound:
            return None
        return file

    async def read(self, file: str) -> bytes:
        """Return a whole file. Raises `FileNotFound`, and `Overloaded` when the store does not respond."""
        store, _ = await self._open()
        found = await _translate_errors(obstore.get_async(store, _valid_id(file)))
        return bytes(await _translate_errors(found.bytes_async()))

    async def size(self, file: str) -> int:
        """Return the size of a file in bytes. Raises as `read` does."""
        return (await self.head(file)).size

    async def head(self, file: str) -> StoredFile:
        """Return the metadata of a file, with no chunks, and fetch none. Raises as `read` does."""
        store, _ = await self._open()
        known = await _translate_errors(obstore.head_async(store, _valid_id(file)))
        return _stored_file(file, known, (0, known["size"]), _no_chunks())

    async def get(self, file: str, part: tuple[int, int] | None = None) -> StoredFile:
        """Return a file, or the bytes `part` (start, end) of it, to read in chunks. Raises as `read` does."""
        store, _ = await self._open()
        options: Any = None if part is None else {"range": part}
        found = await _translate_errors(obstore.get_async(store, _valid_id(file), options=options))
        return _stored_file(file, found.meta, found.range, _read_chunks(found.stream(_CHUNK)))

    async def delete(self, *files: str) -> None:
        """Remove files, if they exist. Raises `Overloaded`."""
        store, _ = await self._open()
        for file in files:
            with suppress(FileNotFound):
                await _translate_errors(obstore.delete_async(store, _valid_id(file)))

    def url(self, file: str, base: str, *, seconds: float | None = None) -> str:
        """Return a signed URL of a file, for `seconds` (default: `files_url_seconds`). `base` is the gateway's URL.

        With the setting `files_style = "path"`, return the path in the file system, which does not expire.
        """
        if self._settings.files_style == "path":
            local = object_stores.local_folder(self._settings)
            assert local is not None  # `object_stores.check_settings` requires a folder
            return str(local / file)
        return f"{base.rstrip('/')}/files/{file}?{self.sign(file, seconds)}"

    def sign(self, name: str, seconds: float | None = None) -> str:
        """Return the query of a signed URL of `name`, for `seconds` as in `url`. Raises `Overloaded`."""
        expires = int(time.time() + (self._settings.files_url_seconds if seconds is None else seconds))
        return f"expires={expires}&signature={self._get_signer().signature(name, expires)}"

    def verify_name(self, name: str, expires: str, signature: str) -> int:
        """Return the Unix second until which a query of `sign` is valid. Raises `Forbidden`, and `Overloaded`."""
        return self._get_signer().verify(name, expires, signature, time.time())

    def verify(self, file: str, expires: str, signature: str) -> int:
        """Return the Unix second until which a signed URL is valid.

        Raises `Forbidden`, `FileNotFound`, and `Overloaded` when the signing key cannot be read.
        """
        until = self.verify_name(file, expires, signature)
        _valid_id(file)
        return until

    async def sweep_periodically(self) -> None:
        """Sweep at intervals, for ever, unless the folder does not exist yet."""
        while True:
            local = object_stores.local_folder(self._settings)
            if local is None or local.is_dir():
                try:
                    await self.sweep()
                except Exception as error:  # the next one may go well
                    self._log.warning("sweep failed", reason=str(error)[:500])
            await asyncio.sleep(_SWEEP_INTERVAL_SECONDS)

    async def _make_room(self) -> None:
        """Sweep if the pending bytes do not fit. Free some more, so that the next files need no sweep."""
        most = self._settings.files_max_bytes
        async with self._sweep_lock:
            if self._stored_bytes + self._pending_bytes <= most:
                return
            try:
                await self.sweep(room=max(self._pending_bytes, int(most * _HEADROOM)))
            except Exception as error:  # the file may fit all the same
                self._log.warning("sweep failed", reason=str(error)[:500])
                self._stored_bytes = 0  # the next files do not wait for another failing sweep

    async def sweep(self, room: int = 0) -> tuple[int, int]:
        """Remove files older than `files_retention`, then the oldest until `files_max_bytes - room` bytes remain.

        Return the number of removed files and of remaining bytes. Files whose names have another form are not touched.
        """
        store, _ = await self._open()
        files = []
        async for chunk in obstore.list(store):
            files += [file for file in chunk if _FILE_ID.fullmatch(file["path"])]
        files.sort(key=lambda file: file["last_modified"])
        total = sum(file["size"] for file in files)
        expired_before = time.time() - self._settings.files_retention
        max_bytes = self._settings.files_max_bytes - room
        removed = []
        for file in files:
            if file["last_modified"].timestamp() >= expired_before and total <= max_bytes:
                break
            removed.append(file["path"])
            total -= file["size"]
        await self.delete(*removed)
        self._stored_bytes = total
        await asyncio.to_thread(self._sweep_temporary_files)
        if removed:
            self._log.info("files swept", files=len(removed), bytes_left=total)
        return len(removed), total

    def _sweep_temporary_files(self) -> None:
        local = object_stores.local_folder(self._settings)
        for path in local.iterdir() if local and local.is_dir() else ():
            with suppress(FileNotFoundError):
                if (
                    _TEMPORARY_FILE.fullmatch(path.name)
                    and path.stat().st_mtime < time.time() - _TEMPORARY_FILE_AGE_SECONDS
                ):
                    path.unlink()

    async def _open(self) -> tuple[ObjectStore, Signer]:
        """Return the store and the signer, which are created at the first use."""
        try:
            return self._store, self._get_signer()
        except OSError as error:
            raise _to_gateway_error(error) from error

    def _get_signer(self) -> Signer:
        try:
            return self._signer
        except OSError as error:
            raise _to_gateway_error(error) from error

    @cached_property
    def _store(self) -> ObjectStore:
        return object_stores.open_store(self._settings)

    @cached_property
    def _signer(self) -> Signer:
        key = self._settings.files_key
        return Signer(
            key.get_secret_value().encode() if key else load_or_create_key(self._settings.state / "files.key")
        )


def _stored_file(file: str, known: "ObjectMeta", part: tuple[int, int], chunks: AsyncGenerator[bytes]) -> StoredFile:
    return StoredFile(
        content_type=content_type(file),
        size=known["size"],
        etag=known["e_tag"],
        modified=known["last_modified"],
        start=part[0],
        end=part[1],
        chunks=chunks,
    )


async def _read_chunks(stream: "BytesStream") -> AsyncGenerator[bytes]:
    """Yield the chunks of a file. Raises `GatewayError` where the store fails before the end."""
    try:
        async for chunk in stream:
            yield chunk
    except (BaseError, OSError) as error:
        raise _to_gateway_error(error) from error


async def _no_chunks(empty: tuple[bytes, ...] = ()) -> AsyncGenerator[bytes]:
    for chunk in empty:
        yield chunk


def _valid_id(file: str) -> str:
    """Return `file` if it has the form of an id, else raise `FileNotFound`: no other name reaches a store."""
    found = _FILE_ID.fullmatch(file)
    if not found or found[1] not in CONTENT_TYPES:
        raise FileNotFound("The file does not exist.")
    return file


async def _translate_errors(work: Awaitable[T]) -> T:
    """Await an operation of a store. Raises `GatewayError` for every failure."""
    try:
        return await work
    except (BaseError, OSError) as error:
        raise _to_gateway_error(error) from error


def _to_gateway_error(error: Exception) -> GatewayError:
    if isinstance(error, FileNotFoundError):
        return FileNotFound("The file does not exist, or its retention time has ended.")
    reason = f"{error} {error.__cause__ or ''}".lower()
    if any(word in reason for word in _FULL_MESSAGES):
        return StorageFull("The file store is full: the file was not stored.")
    structlog.get_logger("gateway.files").error("store failed", reason=str(error)[:500])
    return Overloaded("The file store does not respond.", retry_after=RETRY_AFTER_SECONDS)
