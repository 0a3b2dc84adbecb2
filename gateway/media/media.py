"""What callers refer to, as bytes that were looked at, or as text."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias, TypeVar

from gateway.errors import RETRY_AFTER, InvalidRequest, Overloaded
from gateway.media import inline, pictures, sniffing
from gateway.media.allowance import Allowance
from gateway.media.fetching import Fetched, Fetcher, Resolve, ask_system
from gateway.media.pictures import Picture
from gateway.media.readers import Readers
from gateway.media.sniffing import Kind, Nature
from gateway.media.unusable import Unusable
from gateway.settings import Settings

_SOUND_RATE = 16_000
_LARGE = 256 * 1024
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
        # Each may take 4 bytes a pixel, and goes on to its end when nobody waits for it any more.
        self._looking = ThreadPoolExecutor(2, thread_name_prefix="looking")
        self.request_timeout = settings.media_request_timeout
        """Seconds that all references of one request may take; kept by who reads the request."""
        self._under_way: set[asyncio.Task[object]] = set()
        self._closed = False

    async def close(self) -> None:
        """End all that is under way: its callers see it cancelled."""
        self._closed = True
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        self._looking.shutdown(wait=False, cancel_futures=True)

    def allowance(self) -> Allowance:
        """Return what the references of one request have together, for each of the calls below."""
        return Allowance(self._settings.media_request_max_bytes)

    async def picture(
        self, reference: str, *, param: str, bare: bool = False, allowance: Allowance | None = None
    ) -> Picture:
        """Return a picture as it was encoded; all of it has been decoded once.

        `reference` is an http(s) URL, a data URL or, if `bare`, plain base64.
        """
        allowance = allowance or self.allowance()

        async def look() -> Picture:
            return await self._check(await self._fetch(reference, _PICTURE, allowance, bare=bare))

        return await self._attempt(param, allowance, look)

    async def uploaded_picture(self, data: bytes, *, param: str, allowance: Allowance | None = None) -> Picture:
        """The same, of a picture that came as a file of a form."""
        allowance = allowance or self.allowance()

        async def look() -> Picture:
            if len(data) > self._settings.media_max_bytes:
                raise inline.too_large(self._settings.media_max_bytes)
            allowance.take(len(data))
            return await self._check(_sniffed(data, _PICTURE))

        return await self._attempt(param, allowance, look)

    async def _check(self, blob: Blob) -> Picture:
        check = partial(pictures.check, blob.data, blob.media_type, max_pixels=self._settings.picture_max_pixels)
        return await asyncio.get_running_loop().run_in_executor(self._looking, check)

    async def document(
        self, reference: str, *, filename: str | None = None, param: str, allowance: Allowance | None = None
    ) -> str:
        """Return the text of a document. `filename` tells HTML from other text; it is trusted with nothing else."""
        allowance = allowance or self.allowance()

        async def read() -> str:
            blob = await self._fetch(reference, _DOCUMENT, allowance, bare=True)
            task = {
                "task": "document",
                "media_type": blob.media_type,
                "markup": (filename or blob.name).lower().endswith(_MARKUP) or blob.declared.endswith("html"),
                "max_characters": self._settings.document_max_characters,
            }
            largest = 4 * self._settings.document_max_characters
            async with allowance.reading:
                return (await self._readers.read(task, blob.data, largest=largest)).decode()

        return await self._attempt(param, allowance, read)

    async def sound(
        self, data_base64: str, form: SoundForm, *, param: str, allowance: Allowance | None = None
    ) -> Sound:
        """Return the samples of a sound in base64 or a data URL, decoded as what it is, whatever `form` says."""
        allowance = allowance or self.allowance()

        async def listen() -> Sound:
            if data_base64[:8].lower().startswith(("http:", "https:")):
                raise Unusable(f"expected the sound itself ({form}) in base64, not a URL")
            blob = await self._fetch(data_base64, _SOUND, allowance, bare=True)
            seconds = self._settings.sound_max_seconds
            task = {"task": "sound", "container": sniffing.SOUNDS[blob.media_type], "max_seconds": seconds}
            async with allowance.reading:
                data = await self._readers.read(task, blob.data, largest=int(seconds * _SOUND_RATE * 4))
            return Sound(data=data, seconds=len(data) / 4 / _SOUND_RATE)

        return await self._attempt(param, allowance, listen)

    async def _attempt(self, param: str, allowance: Allowance, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do `work` as long as this object is open, and say what is wrong in terms of the field `param`."""
        if self._closed:
            raise Overloaded("The service is stopping.", retry_after=RETRY_AFTER)
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            async with allowance.place:
                return await work()
        except Unusable as why:
            raise InvalidRequest(f"Invalid value for '{param}': {why}.", param=param) from None
        finally:
            self._under_way.discard(task)

    async def _fetch(self, reference: str, accept: Collection[Kind], allowance: Allowance, *, bare: bool) -> Blob:
        limit = self._settings.media_max_bytes
        scheme = reference[:8].lower()
        declared = name = ""
        if scheme.startswith(("http://", "https://")):
            fetched = await self._download(reference, allowance)
            data, declared, name = fetched.data, fetched.declared, fetched.name
        elif scheme.startswith("data:"):
            data, declared = await _unpack(inline.from_data_url, reference, limit)
            allowance.take(len(data))
        elif bare and "://" not in reference[:64]:
            data = await _unpack(inline.from_base64, reference, limit)
            allowance.take(len(data))
        else:
            others = "a data URL or base64" if bare else "or a data URL"
            raise Unusable(f"expected an http or https URL, {others}")
        return replace(_sniffed(data, accept), declared=declared, name=name)

    async def _download(self, url: str, allowance: Allowance) -> Fetched:
        try:
            async with asyncio.timeout(self._settings.media_timeout):
                await self._fetching.acquire()
        except TimeoutError:
            raise Overloaded("Too many URLs are being fetched now.", retry_after=RETRY_AFTER) from None
        try:
            return await self._fetcher.fetch(url, allowance.take)
        finally:
            self._fetching.release()


async def _unpack(unpack: Callable[..., Result], text: str, limit: int) -> Result:
    """Unpack in a thread what would keep others waiting for longer than starting one does."""
    if len(text) < _LARGE:
        return unpack(text, limit=limit)
    return await asyncio.to_thread(unpack, text, limit=limit)


def _sniffed(data: bytes, accept: Collection[Kind]) -> Blob:
    if not data:
        raise Unusable("it is empty")
    nature = sniffing.sniff(data)
    if nature.kind not in accept:
        raise _unexpected(nature, accept)
    return Blob(data=data, kind=nature.kind, media_type=nature.media_type)


def _unexpected(nature: Nature, accept: Collection[Kind]) -> Unusable:
    expected = " or ".join(_EXPECTED[kind] for kind in accept)
    what = "text or of an unknown type" if nature.media_type == sniffing.TEXT else f"of the type {nature.media_type}"
    return Unusable(f"expected {expected}, but it is {what}")
