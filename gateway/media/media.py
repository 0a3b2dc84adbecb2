"""What callers refer to, as bytes that were looked at, or as text."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from gateway.errors import RETRY_AFTER, InvalidRequest, Overloaded
from gateway.media import inline, pictures, sniffing
from gateway.media.fetching import Fetched, Fetcher, Resolve, ask_system
from gateway.media.pictures import Picture
from gateway.media.readers import Readers
from gateway.media.sniffing import Kind, Nature
from gateway.media.unusable import Unusable
from gateway.settings import Settings

_SOUND_RATE = 16_000
_MARKUP = (".html", ".htm", ".xhtml")
_EXPECTED = {
    "picture": "a picture (PNG, JPEG, WebP, GIF or BMP)",
    "document": "a document (PDF, DOCX, PPTX, XLSX, HTML or a text file)",
    "sound": "a sound (WAV, MP3, FLAC, Ogg, M4A, AAC or WebM)",
}
_PICTURE: tuple[Kind, ...] = ("picture",)
_DOCUMENT: tuple[Kind, ...] = ("document",)
_SOUND: tuple[Kind, ...] = ("sound",)
SoundForm: TypeAlias = Literal["wav", "mp3", "flac", "ogg", "opus", "m4a", "mp4", "aac", "webm"]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Bytes that a reference led to. `media_type` was sniffed; `declared` and `name` are claims, and may be empty."""

    data: bytes
    kind: Kind
    media_type: str
    declared: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """Mono float32 samples, little endian, 16,000 a second."""

    data: bytes
    seconds: float


class Media:
    """Fetches and reads what callers refer to.

    Whatever is wrong with a reference is raised as `InvalidRequest` with the `param` given; `Overloaded` is raised when
    too many others are being fetched or read. Nothing takes longer than the settings allow. A task that is cancelled
    ends its connection or its process.
    """

    def __init__(self, settings: Settings, *, resolve: Resolve = ask_system) -> None:
        """`resolve` finds the addresses of hosts, for tests."""
        self._settings = settings
        self._fetcher = Fetcher(
            timeout=settings.media_timeout,
            max_bytes=settings.media_max_bytes,
            allow_private=settings.media_allow_private,
            allowed_hosts=settings.media_allowed_hosts,
            resolve=resolve,
        )
        self._readers = Readers(
            places=settings.document_workers, timeout=settings.document_timeout, memory=settings.document_memory_bytes
        )
        self._fetching = asyncio.Semaphore(settings.media_concurrency)
        self._looking = asyncio.Semaphore(2)  # each may take 4 bytes a pixel
        self._under_way: set[asyncio.Task[object]] = set()
        self._closed = False

    async def close(self) -> None:
        """End all that is under way: its callers see it cancelled."""
        self._closed = True
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def fetch(self, reference: str, *, param: str, accept: Collection[Kind], bare: bool = False) -> Blob:
        """Return what an http(s) URL, a data URL or, if `bare`, plain base64 leads to. Its kind is one of `accept`."""
        return await self._attempt(param, lambda: self._fetch(reference, accept, bare=bare))

    async def picture(self, reference: str, *, param: str, bare: bool = False) -> Picture:
        """Return a picture as it was encoded; all of it has been decoded once."""

        async def look() -> Picture:
            blob = await self._fetch(reference, _PICTURE, bare=bare)
            async with self._looking:
                return await asyncio.to_thread(
                    pictures.check, blob.data, blob.media_type, max_pixels=self._settings.picture_max_pixels
                )

        return await self._attempt(param, look)

    async def document(self, reference: str, *, filename: str | None = None, param: str) -> str:
        """Return the text of a document. `filename` tells HTML from other text; it is trusted with nothing else."""

        async def read() -> str:
            blob = await self._fetch(reference, _DOCUMENT, bare=True)
            task = {
                "task": "document",
                "media_type": blob.media_type,
                "markup": (filename or blob.name).lower().endswith(_MARKUP) or blob.declared.endswith("html"),
                "max_characters": self._settings.document_max_characters,
            }
            largest = 4 * self._settings.document_max_characters
            return (await self._readers.read(task, blob.data, largest=largest)).decode()

        return await self._attempt(param, read)

    async def sound(self, data_base64: str, form: SoundForm, *, param: str) -> Sound:
        """Return the samples of a sound in base64 or a data URL, decoded as what it is, whatever `form` says."""

        async def listen() -> Sound:
            if data_base64[:8].lower().startswith(("http:", "https:")):
                raise Unusable(f"expected the sound itself ({form}) in base64, not a URL")
            blob = await self._fetch(data_base64, _SOUND, bare=True)
            seconds = self._settings.sound_max_seconds
            task = {"task": "sound", "container": sniffing.SOUNDS[blob.media_type], "max_seconds": seconds}
            data = await self._readers.read(task, blob.data, largest=int(seconds * _SOUND_RATE * 4))
            return Sound(data=data, seconds=len(data) / 4 / _SOUND_RATE)

        return await self._attempt(param, listen)

    async def _attempt(self, param: str, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do `work` as long as this object is open, and say what is wrong in terms of the field `param`."""
        if self._closed:
            raise Overloaded("The service is stopping.", retry_after=RETRY_AFTER)
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            return await work()
        except Unusable as why:
            raise InvalidRequest(f"Invalid value for '{param}': {why}.", param=param) from None
        finally:
            self._under_way.discard(task)

    async def _fetch(self, reference: str, accept: Collection[Kind], *, bare: bool) -> Blob:
        limit = self._settings.media_max_bytes
        scheme = reference[:8].lower()
        declared = name = ""
        if scheme.startswith("data:"):
            data, declared = inline.from_data_url(reference, limit=limit)
        elif scheme.startswith(("http://", "https://")):
            fetched = await self._download(reference)
            data, declared, name = fetched.data, fetched.declared, fetched.name
        elif bare and "://" not in reference[:64]:
            data = inline.from_base64(reference, limit=limit)
        else:
            others = "a data URL or base64" if bare else "or a data URL"
            raise Unusable(f"expected an http or https URL, {others}")
        if not data:
            raise Unusable("it is empty")
        nature = sniffing.sniff(data)
        if nature.kind not in accept:
            raise _unexpected(nature, accept)
        return Blob(data=data, kind=nature.kind, media_type=nature.media_type, declared=declared, name=name)

    async def _download(self, url: str) -> Fetched:
        try:
            async with asyncio.timeout(self._settings.media_timeout):
                await self._fetching.acquire()
        except TimeoutError:
            raise Overloaded("Too many URLs are being fetched now.", retry_after=RETRY_AFTER) from None
        try:
            return await self._fetcher.fetch(url)
        finally:
            self._fetching.release()


def _unexpected(nature: Nature, accept: Collection[Kind]) -> Unusable:
    expected = " or ".join(_EXPECTED[kind] for kind in accept)
    what = "text or of an unknown type" if nature.media_type == sniffing.TEXT else f"of the type {nature.media_type}"
    return Unusable(f"expected {expected}, but it is {what}")
