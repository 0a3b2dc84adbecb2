"""Files that may be larger than memory: the first megabyte is in memory, the rest in a file without a name."""

import asyncio
import errno
import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

import structlog

from gateway.errors import RETRY_AFTER_SECONDS, GatewayError, Overloaded, StorageFull
from gateway.fair_sharing import MemoryReservation
from gateway.operations.recording import Attachment

_MEMORY_BYTES = 1024 * 1024
"""Files up to this size stay in memory. Larger ones are written in steps of this size, in threads."""
_CHUNK_BYTES = 256 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT)


class SpoolFile:
    """A file that is written once and then read any number of times. It disappears when it is closed.

    Readers get descriptors of their own, which stay valid after the file is closed.
    """

    def __init__(self, folder: Path, reservation: MemoryReservation) -> None:
        """`folder` holds larger files; it is created when it is needed. `reservation` counts the bytes."""
        self._folder = folder
        self._reservation = reservation
        self._descriptor = os.memfd_create("upload", os.MFD_CLOEXEC)
        self._on_disk = False
        self._pending = bytearray()
        self.size = 0

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes. Raises `Overloaded` if files of this caller hold too many, and `StorageFull`."""
        self._reservation.acquire(len(data))
        self.size += len(data)
        self._pending += data
        if self._on_disk or self.size > _MEMORY_BYTES:
            if len(self._pending) >= _MEMORY_BYTES or not self._on_disk:
                await self._flush()
        else:
            self._write_pending()

    async def finish(self) -> None:
        """Write what is pending. Raises as `write` does."""
        if self._pending:
            await self._flush()

    def open(self) -> int:
        """Return a new descriptor for reading from the start. The caller closes it."""
        return os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDONLY | os.O_CLOEXEC)

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the bytes of the file."""
        descriptor = self.open()
        try:
            while chunk := await asyncio.to_thread(os.read, descriptor, _CHUNK_BYTES):
                yield chunk
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Remove the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._pending.clear()
            self._reservation.release()

    async def _flush(self) -> None:
        """Write what is pending, in a thread."""
        writing = asyncio.create_task(asyncio.to_thread(self._write_pending))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            # The file must not be closed, and its number reused, while the thread writes to it.
            with suppress(OSError):
                await writing
            raise
        except OSError as error:
            raise _to_gateway_error(error) from None

    def _write_pending(self) -> None:
        if self.size > _MEMORY_BYTES and not self._on_disk:
            self._move_to_disk()
        while self._pending:
            count = os.write(self._descriptor, self._pending)
            del self._pending[:count]

    def _move_to_disk(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=self._folder) as file:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            while chunk := os.read(self._descriptor, _CHUNK_BYTES):
                file.write(chunk)
            file.flush()
            os.dup2(file.fileno(), self._descriptor, inheritable=False)
        self._on_disk = True


class SpoolAttachment(Attachment):
    """A complete file as a part of a request."""

    def __init__(self, spool: SpoolFile) -> None:
        self._spool = spool

    def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the bytes of the file."""
        return self._spool.chunks()


def _to_gateway_error(error: OSError) -> GatewayError:
    if error.errno in _FULL:
        return StorageFull("The disk is full: the file was not stored.")
    structlog.get_logger("gateway").error("an uploaded file cannot be stored", reason=str(error)[:500])
    return Overloaded("The file cannot be stored now.", retry_after=RETRY_AFTER_SECONDS)
