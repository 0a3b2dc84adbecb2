"""What callers refer to, as bytes that were looked at, or as text."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, TypeVar

from gateway.errors import RETRY_AFTER, InvalidRequest, Overloaded
from gateway.media import inline, sniffing
from gateway.media.allowance import Allowance
from gateway.media.fetching import Fetched, Fetcher, Resolve
from gateway.media.fork_server import ForkServer
from gateway.media.pictures import Picture
from gateway.media.readers import Readers
from gateway.media.reading import escapes
from gateway.media.sniffing import Kind, Nature
from gateway.media.unusable import Unusable
from gateway.places import Places, Room
from gateway.settings import Settings

_SOUND_RATE = 16_000
_MANY_ESCAPES = 64 * 1024
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

    def __init__(self, settings: Settings, *, resolve: Resolve | None = None) -> None:
        """`resolve` finds the addresses of hosts, for tests."""
        self._settings = settings
        self._fetcher = Fetcher(
            timeout=settings.media_timeout,
            max_bytes=settings.media_max_bytes,
            allow_private=settings.media_allow_private,
            allowed_hosts=settings.media_allowed_hosts,
            lookups=settings.media_concurrency,
            resolve=resolve,
        )
        self._server = ForkServer()
        memory = settings.document_memory_bytes
        self._documents = Readers(
            self._server,
            what="file",
            places=settings.document_workers,
            timeout=settings.document_timeout,
            memory=memory,
        )
        # Places of their own: a picture takes milliseconds, and does not wait for documents.
        self._pictures = Readers(
            self._server,
            what="picture",
            places=settings.picture_workers,
            timeout=settings.picture_timeout,
            memory=memory,
        )
        self._fetching = Places(settings.media_concurrency)
        self._room = Room(settings.media_held_bytes)
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
        await self._server.close()

    def allowance(self, caller: str) -> Allowance:
        """Return what the references of one request of `caller` have together, to be used in a `with`."""
        return Allowance(
            caller,
            max_bytes=self._settings.media_request_max_bytes,
            max_pixels=self._settings.picture_request_max_pixels,
            room=self._room,
        )

    async def picture(self, reference: str, *, param: str, allowance: Allowance, bare: bool = False) -> Picture:
        """Return a picture as it was encoded; all of it has been decoded once.

        `reference` is an http(s) URL, a data URL or, if `bare`, plain base64.
        """

        async def look() -> Picture:
            return await self._check(await self._fetch(reference, _PICTURE, allowance, bare=bare), allowance)

        return await self._attempt(param, allowance, look)

    async def uploaded_picture(self, data: bytes, *, param: str, allowance: Allowance) -> Picture:
        """The same, of a picture that came as a file of a form."""

        async def look() -> Picture:
            if len(data) > self._settings.media_max_bytes:
                raise inline.too_large(self._settings.media_max_bytes)
            allowance.take(len(data))
            return await self._check(_sniffed(data, _PICTURE), allowance)

        return await self._attempt(param, allowance, look)

    async def _check(self, blob: Blob, allowance: Allowance) -> Picture:
        task = {
            "task": "picture",
            "media_type": blob.media_type,
            "max_pixels": self._settings.picture_max_pixels,
            "pixels_left": allowance.pixels_left,
        }
        found, _ = await self._pictures.read(task, blob.data, allowance=allowance, largest=0)
        width, height = _side(found, "width"), _side(found, "height")
        allowance.take_pixels(width * height)
        return Picture(data=blob.data, media_type=blob.media_type, width=width, height=height)

    async def document(self, reference: str, *, filename: str | None = None, param: str, allowance: Allowance) -> str:
        """Return the text of a document. `filename` tells HTML from other text; it is trusted with nothing else."""

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
                _, text = await self._documents.read(task, blob.data, allowance=allowance, largest=largest)
            return text.decode(errors="replace")

        return await self._attempt(param, allowance, read)

    async def sound(self, data_base64: str, form: SoundForm, *, param: str, allowance: Allowance) -> Sound:
        """Return the samples of a sound in base64 or a data URL, decoded as what it is, whatever `form` says."""

        async def listen() -> Sound:
            if data_base64[:8].lower().startswith(("http:", "https:")):
                raise Unusable(f"expected the sound itself ({form}) in base64, not a URL")
            blob = await self._fetch(data_base64, _SOUND, allowance, bare=True)
            seconds = self._settings.sound_max_seconds
            task = {"task": "sound", "container": sniffing.SOUNDS[blob.media_type], "max_seconds": seconds}
            largest = int(seconds * _SOUND_RATE) * 4
            async with allowance.reading:
                _, data = await self._documents.read(task, blob.data, allowance=allowance, largest=largest)
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
            text, declared = inline.data_url(reference, limit=limit)
            data = await self._unpack(text, allowance)
        elif bare and "://" not in reference[:64]:
            data = await self._unpack(inline.base64_text(reference, limit=limit), allowance)
        else:
            others = "a data URL or base64" if bare else "or a data URL"
            raise Unusable(f"expected an http or https URL, {others}")
        return replace(_sniffed(data, accept), declared=declared, name=name)

    async def _unpack(self, text: inline.Text, allowance: Allowance) -> bytes:
        limit = self._settings.media_max_bytes
        if not text.is_escaped():
            data = await inline.unpacked(text, limit=limit)
        else:
            encoded = text.encoded()
            if len(encoded) <= _MANY_ESCAPES:
                data = escapes.unquoted(encoded, base64=text.base64)
            else:
                task = {"task": "unquote", "base64": text.base64}
                _, data = await self._documents.read(task, encoded, allowance=allowance, largest=limit)
        allowance.take(len(data))
        return data

    async def _download(self, url: str, allowance: Allowance) -> Fetched:
        caller = allowance.caller
        with allowance.waiting():
            try:
                await self._fetching.take(caller, seconds=self._settings.media_timeout)
            except TimeoutError:
                raise Overloaded("Too many URLs are being fetched now.", retry_after=RETRY_AFTER) from None
        try:
            return await self._fetcher.fetch(url, allowance.take, caller=caller)
        finally:
            self._fetching.release(caller)


def _side(found: Mapping[str, object], name: str) -> int:
    """A length that a process of a reader tells of: it may have been made to say anything."""
    side = found.get(name)
    if not isinstance(side, int) or side < 1:
        raise Unusable("the picture is broken or cut off")
    return side


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
