"""What models produced, kept for a while: pictures under names that nobody guesses, at addresses that expire."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Awaitable
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
from gateway.files.signing import Signer, load_or_create_key
from gateway.settings import Settings

if TYPE_CHECKING:
    from obstore import BytesStream, ObjectMeta

CONTENT_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "mp4": "video/mp4",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "bin": "application/octet-stream",
}
"""What the ends of names stand for; nothing that a browser would run is among them."""

_EXTENSIONS = {content_type: end for end, content_type in CONTENT_TYPES.items()}
_FILE_ID = re.compile(r"[a-z2-7]{32}\.([a-z0-9]{3,4})")
_TEMPORARY_FILE = re.compile(r"[a-z2-7]{32}\.[a-z0-9]{3,4}#\d+")
"""What the local store writes before it renames; one that was killed meanwhile leaves it."""
_TEMPORARY_FILE_AGE_SECONDS = 3600.0
_CHUNK = 256 * 1024
_SWEEP_INTERVAL_SECONDS = 600.0
_HEADROOM = 0.1
"""The part of all that files may take that a full store is emptied by."""
_FULL_MESSAGES = (
    *("no space left", "os error 28", "disk quota", "os error 122", "quota exceeded"),
    *("quotaexceeded", "storagefull"),  # codes of Ceph and MinIO
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file that is read: `chunks` are the bytes `start` to `end` (exclusive) of `size`."""

    content_type: str
    size: int
    etag: str | None
    modified: datetime
    start: int
    end: int
    chunks: AsyncGenerator[bytes]


class FileStore:
    """Keeps files in a folder or a bucket. Nothing is touched before the first use."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = structlog.get_logger("gateway.files")
        self._stored_bytes = 0
        """About how much is kept: what the last sweep left, and what was put since."""
        self._pending_bytes = 0
        """How much is being put."""
        self._sweep_lock = asyncio.Lock()

    async def put(self, data: bytes, content_type: str, *, name: str | None = None) -> str:
        """Keep `data` and return its id. Whole or not at all: what fails leaves nothing that could be read.

        What is kept under a `name` replaces what was kept under it; the id tells nothing about the name.
        Where it would be more than `files_max_bytes`, the oldest files go first. Raises `StorageFull`, and `Overloaded`
        where the store does not answer.
        """
        store, signer = await self._open()
        file = f"{signer.name(name)}.{_EXTENSIONS.get(content_type, 'bin')}"
        attributes: Any = None if isinstance(store, LocalStore) else {"Content-Type": content_type}
        self._pending_bytes += len(data)
        try:
            await self._make_room()
            await _translate_errors(obstore.put_async(store, file, data, use_multipart=False, attributes=attributes))
            self._stored_bytes += len(data)
        finally:
            self._pending_bytes -= len(data)
        return file

    async def find(self, name: str, content_type: str) -> str | None:
        """Return the id of what is kept under a name, None where nothing is. Raises `Overloaded`."""
        _, signer = await self._open()
        file = f"{signer.name(name)}.{_EXTENSIONS.get(content_type, 'bin')}"
        try:
            await self.size(file)
        except FileNotFound:
            return None
        return file

    async def read(self, file: str) -> bytes:
        """Return all of a file. Raises `FileGone`, and `Overloaded` where the store does not answer."""
        store, _ = await self._open()
        found = await _translate_errors(obstore.get_async(store, _valid_id(file)))
        return bytes(await _translate_errors(found.bytes_async()))

    async def size(self, file: str) -> int:
        """Return how many bytes a file has. Raises as `read` does."""
        return (await self.head(file)).size

    async def head(self, file: str) -> StoredFile:
        """Return what is known of a file, with no chunks: the store is not asked for a byte. Raises as `read` does."""
        store, _ = await self._open()
        known = await _translate_errors(obstore.head_async(store, _valid_id(file)))
        return _stored_file(file, known, (0, known["size"]), _no_chunks())

    async def get(self, file: str, part: tuple[int, int] | None = None) -> StoredFile:
        """Return a file, or the bytes `part` of it, to be read in chunks. Raises as `read` does."""
        store, _ = await self._open()
        options: Any = None if part is None else {"range": part}
        found = await _translate_errors(obstore.get_async(store, _valid_id(file), options=options))
        return _stored_file(file, found.meta, found.range, _read_chunks(found.stream(_CHUNK)))

    async def delete(self, *files: str) -> None:
        """Remove files; those that are gone already do not matter. Raises `Overloaded`."""
        store, _ = await self._open()
        for file in files:
            with suppress(FileNotFound):
                await _translate_errors(obstore.delete_async(store, _valid_id(file)))

    def url(self, file: str, base: str, *, seconds: float | None = None) -> str:
        """Return where a file can be had for `seconds` (the setting `files_url_seconds`); `base` is this gateway.

        Under the setting `files_style = "path"` it is a path in the file system of this machine, which does not expire.
        """
        if self._settings.files_style == "path":
            local = object_stores.local_folder(self._settings)
            assert local is not None  # `stores.check` has seen to it
            return str(local / file)
        lasting = self._settings.files_url_seconds if seconds is None else seconds
        expires = int(time.time() + lasting)
        signature = self._get_signer().signature(file, expires)
        return f"{base.rstrip('/')}/files/{file}?expires={expires}&signature={signature}"

    def verify(self, file: str, expires: str, signature: str) -> int:
        """Return the Unix second until which an address opens a file.

        Raises `Forbidden`, `FileGone`, and `Overloaded` where the key that signs cannot be read.
        """
        until = self._get_signer().verify(file, expires, signature, time.time())
        _valid_id(file)
        return until

    async def sweep_periodically(self) -> None:
        """Sweep again and again, for ever, once there is something to sweep."""
        while True:
            local = object_stores.local_folder(self._settings)
            if local is None or local.is_dir():
                try:
                    await self.sweep()
                except Exception as error:  # the next one may go well
                    self._log.warning("sweep failed", reason=str(error)[:500])
            await asyncio.sleep(_SWEEP_INTERVAL_SECONDS)

    async def _make_room(self) -> None:
        """Sweep where what comes would be too much, so that some more fits, too, without another look at all files."""
        most = self._settings.files_max_bytes
        async with self._sweep_lock:
            if self._stored_bytes + self._pending_bytes <= most:
                return
            try:
                await self.sweep(room=max(self._pending_bytes, int(most * _HEADROOM)))
            except Exception as error:  # the file itself may be kept all the same
                self._log.warning("sweep failed", reason=str(error)[:500])
                self._stored_bytes = 0  # not every file is to wait for another that fails

    async def sweep(self, room: int = 0) -> tuple[int, int]:
        """Remove what is older than `files_retention`, then the oldest until `files_max_bytes` less `room` are kept.

        Returns how many files went and how many bytes stay. Only names that this class makes are looked at.
        """
        store, _ = await self._open()
        kept = []
        async for chunk in obstore.list(store):
            kept += [found for found in chunk if _FILE_ID.fullmatch(found["path"])]
        kept.sort(key=lambda found: found["last_modified"])
        total = sum(found["size"] for found in kept)
        oldest = time.time() - self._settings.files_retention
        most = self._settings.files_max_bytes - room
        gone = []
        for found in kept:
            if found["last_modified"].timestamp() >= oldest and total <= most:
                break
            gone.append(found["path"])
            total -= found["size"]
        await self.delete(*gone)
        self._stored_bytes = total
        await asyncio.to_thread(self._sweep_temporary_files)
        if gone:
            self._log.info("files swept", files=len(gone), bytes_left=total)
        return len(gone), total

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
        """The store and the signer, which are made when they are first asked for."""
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


def content_type(file: str) -> str:
    """Return the content type of a file, by its id."""
    return CONTENT_TYPES.get(file.rpartition(".")[2], CONTENT_TYPES["bin"])


def _valid_id(file: str) -> str:
    """Return `file` where it could be an id. Raises `FileGone`: no other name ever reaches a store."""
    found = _FILE_ID.fullmatch(file)
    if not found or found[1] not in CONTENT_TYPES:
        raise FileNotFound("There is no such file.")
    return file


async def _translate_errors(work: Awaitable[T]) -> T:
    """Await what a store does. Raises `GatewayError` for every failure."""
    try:
        return await work
    except (BaseError, OSError) as error:
        raise _to_gateway_error(error) from error


def _to_gateway_error(error: Exception) -> GatewayError:
    if isinstance(error, FileNotFoundError):
        return FileNotFound("There is no such file, or no more: files are kept for a while only.")
    told = f"{error} {error.__cause__ or ''}".lower()
    if any(word in told for word in _FULL_MESSAGES):
        return StorageFull("The store of this service is full: the file was not kept.")
    structlog.get_logger("gateway.files").error("store failed", reason=str(error)[:500])
    return Overloaded("The store of this service does not answer.", retry_after=RETRY_AFTER_SECONDS)
