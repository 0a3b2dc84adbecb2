"""Recordings: uploaded or fetched files of sound, decoded piece by piece in processes that can be killed."""

import asyncio
import importlib.util
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from gateway.errors import RETRY_AFTER_SECONDS, Overloaded
from gateway.fair_sharing import MemoryPool
from gateway.media import sniffing
from gateway.media.decoder_pool import DecoderPool
from gateway.media.fork_server import ForkServer
from gateway.media.invalid_media import InvalidMedia
from gateway.media.spool import SpoolFile
from gateway.media.uploads import Uploads, invalid, read_head
from gateway.operations.recording import Recording
from gateway.settings import Settings

_MEMORY_MESSAGE = "Too many recordings are being decoded now; try again later."
_SLOT_SECONDS = 60.0
"""Seconds that a recording waits for a process."""
_MEMORY_PATIENCE_SECONDS = 30.0
_MEMORY_POLL_SECONDS = 0.1

OpenSpool = Callable[[], Awaitable[SpoolFile]]


class Recordings:
    """Decodes recordings within limits of seconds, memory and processes.

    The methods raise `InvalidRequest` with the given `param` for a bad recording, and `Overloaded`.
    """

    def __init__(
        self,
        settings: Settings,
        fork_server: ForkServer,
        uploads: Uploads,
        memory: MemoryPool,
    ) -> None:
        """`uploads` receives the files. `memory` bounds the decoded samples that wait for a model."""
        self._settings = settings
        self.uploads = uploads
        self._memory = memory
        self._pool = DecoderPool(
            fork_server,
            label="recording",
            num_slots=settings.recording_workers,
            timeout=settings.recording_timeout,
            memory=settings.document_memory_bytes,
            slot_timeout=_SLOT_SECONDS,
        )

    def recording(self, spool: SpoolFile, *, param: str, caller: str) -> Recording:
        """Return the recording in a complete file. Reads its first bytes; the samples are decoded later."""
        try:
            _container(spool)
        except InvalidMedia as error:
            raise invalid(error, param) from None
        return _SpooledRecording(self, spool, param=param, caller=caller)

    def stored(self, chunks: Callable[[], AsyncGenerator[bytes]], *, param: str, caller: str) -> Recording:
        """Return a recording whose file is read with `chunks` when it is needed."""
        return _StoredRecording(self, chunks, param=param, caller=caller)

    def pieces(self, spool: SpoolFile, caller: str) -> AsyncGenerator[dict[str, Any] | bytes]:
        """Decode a file, see `DecoderPool.decode_in_pieces`. Raises `InvalidMedia`."""
        task = {
            "task": "recording",
            "container": _container(spool),
            "max_seconds": self._settings.recording_max_seconds,
        }
        return self._pool.decode_in_pieces(task, spool.open(), caller=caller)

    async def reserve(self, caller: str, size: int) -> None:
        """Wait until `caller` may hold `size` bytes of samples more. Raises `Overloaded` after half a minute."""
        waited = 0.0
        while not self._memory.acquire(caller, size):
            if waited >= _MEMORY_PATIENCE_SECONDS:
                raise Overloaded(_MEMORY_MESSAGE, retry_after=RETRY_AFTER_SECONDS)
            await asyncio.sleep(_MEMORY_POLL_SECONDS)
            waited += _MEMORY_POLL_SECONDS

    def free(self, caller: str, size: int) -> None:
        """Give back what `reserve` has taken."""
        self._memory.release(caller, size)


class _SpooledRecording(Recording):
    def __init__(self, recordings: Recordings, spool: SpoolFile, *, param: str, caller: str) -> None:
        self._recordings, self._spool, self._param, self._caller = recordings, spool, param, caller

    def chunks(self) -> AsyncGenerator[bytes]:
        return self._spool.chunks()

    def open(self) -> "_Reader":
        async def open_spool() -> SpoolFile:
            return self._spool

        return _Reader(self._recordings, open_spool, self._param, self._caller, owns_spool=False)


class _StoredRecording(Recording):
    def __init__(
        self, recordings: Recordings, chunks: Callable[[], AsyncGenerator[bytes]], *, param: str, caller: str
    ) -> None:
        self._recordings, self._chunks, self._param, self._caller = recordings, chunks, param, caller

    def chunks(self) -> AsyncGenerator[bytes]:
        return self._chunks()

    def open(self) -> "_Reader":
        return _Reader(self._recordings, self._copy, self._param, self._caller, owns_spool=True)

    async def _copy(self) -> SpoolFile:
        spool = self._recordings.uploads.new_spool(self._caller)
        try:
            async with aclosing(self._chunks()) as chunks:
                async for chunk in chunks:
                    await spool.write(chunk)
            await spool.finish()
        except BaseException:
            spool.close()
            raise
        return spool


class _Reader:
    """A `SampleReader` over a file that a process decodes."""

    def __init__(
        self, recordings: Recordings, open_spool: OpenSpool, param: str, caller: str, *, owns_spool: bool
    ) -> None:
        self._recordings, self._open_spool, self._param, self._caller = recordings, open_spool, param, caller
        self._owns_spool = owns_spool
        self._spool: SpoolFile | None = None
        self._pieces: AsyncGenerator[dict[str, Any] | bytes] | None = None
        self._samples = bytearray()
        self._ended = False
        self.total_seconds: float | None = None

    async def fill(self, size: int) -> int:
        """Decode until `size` bytes are in memory, see `SampleReader.fill`."""
        try:
            if self._spool is None:
                self._spool = await self._open_spool()
                self._pieces = self._recordings.pieces(self._spool, self._caller)
            while len(self._samples) < size and not self._ended:
                assert self._pieces is not None
                piece = await anext(self._pieces, None)
                if piece is None:
                    self._ended = True
                elif isinstance(piece, bytes):
                    await self._recordings.reserve(self._caller, len(piece))
                    self._samples += piece
                else:
                    self._set_length(piece.get("seconds"))
        except InvalidMedia as error:
            raise invalid(error, self._param) from None
        return min(size, len(self._samples))

    def peek(self, size: int) -> bytes:
        """Return up to `size` bytes of those in memory."""
        return bytes(memoryview(self._samples)[:size])

    def drop(self, size: int) -> None:
        """Free the first `size` bytes in memory."""
        del self._samples[:size]
        self._recordings.free(self._caller, size)

    async def aclose(self) -> None:
        """End the process."""
        self._ended = True
        if self._samples:
            self.drop(len(self._samples))
        if self._pieces is not None:
            await self._pieces.aclose()
        if self._spool is not None and self._owns_spool:
            self._spool.close()

    def _set_length(self, seconds: object) -> None:
        """Take over the length that the file declares. A manipulated file may declare anything."""
        if isinstance(seconds, int | float) and math.isfinite(seconds) and seconds > 0:
            self.total_seconds = float(seconds)


def _container(spool: SpoolFile) -> str:
    """Return FFmpeg's name of the container of a file. Raises `InvalidMedia`."""
    if importlib.util.find_spec("av") is None:
        raise InvalidMedia("this gateway decodes no audio, as its extra 'audio' (PyAV) is not installed")
    sniffed = sniffing.sniff(read_head(spool))
    if sniffed.kind != "audio":
        raise InvalidMedia(
            "expected an audio file (FLAC, M4A, MP3, MP4, Ogg, WAV, WebM or another container with sound), "
            f"got {sniffed.description}"
        )
    return sniffing.AUDIO_CONTAINERS[sniffed.media_type]
