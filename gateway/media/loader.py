"""Loading of references: verified images, texts of documents, and audio samples."""

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, TypeVar

from gateway.errors import RETRY_AFTER_SECONDS, InvalidRequest, Overloaded
from gateway.fair_sharing import MemoryPool
from gateway.media import inline_data, sniffing
from gateway.media.blobs import Blob, sniff_blob
from gateway.media.budget import Budget
from gateway.media.compositions import Compositions
from gateway.media.decoder_pool import DecoderPool
from gateway.media.decoders import percent_encoding
from gateway.media.encoded_image import EncodedImage
from gateway.media.fetch_slots import FetchSlots
from gateway.media.fork_server import ForkServer
from gateway.media.invalid_media import InvalidMedia
from gateway.media.recordings import Recordings
from gateway.media.sniffing import MediaKind
from gateway.media.speech_encoder import SpeechEncoder
from gateway.media.uploads import Uploads
from gateway.media.url_fetcher import FetchedFile, ResolveHost, UrlFetcher
from gateway.media.videos import Videos
from gateway.settings import Settings

_SAMPLE_RATE = 16_000
_MAX_INLINE_ESCAPE_BYTES = 64 * 1024
_MAX_FRAME_OVERHEAD = 64 * 1024
"""Bytes of a PNG besides its pixels."""
_HTML_SUFFIXES = (".html", ".htm", ".xhtml")
_IMAGE: tuple[MediaKind, ...] = ("image",)
_DOCUMENT: tuple[MediaKind, ...] = ("document",)
_AUDIO: tuple[MediaKind, ...] = ("audio",)
AudioFormat: TypeAlias = Literal["wav", "mp3", "flac", "ogg", "opus", "m4a", "mp4", "aac", "webm"]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio:
    """Mono float32 samples, little-endian, 16,000 a second."""

    data: bytes
    seconds: float


class MediaLoader:
    """Fetches and decodes the files that requests refer to.

    The methods raise `InvalidRequest` with the given `param` for a bad reference, and `Overloaded` if too many other
    files are being fetched or decoded. Settings limit all times. Cancelling a task closes its connection or kills its
    child process.
    """

    def __init__(self, settings: Settings, *, resolve: ResolveHost | None = None) -> None:
        """`resolve` replaces the resolver of the system in tests."""
        self._settings = settings
        self._fetcher = UrlFetcher(
            timeout=settings.media_timeout,
            max_bytes=settings.media_max_bytes,
            allow_private=settings.media_allow_private,
            allowed_hosts=settings.media_allowed_hosts,
            lookups=settings.media_concurrency,
            resolve=resolve,
        )
        self._fork_server = ForkServer()
        memory = settings.document_memory_bytes
        self._document_pool = DecoderPool(
            self._fork_server,
            label="file",
            num_slots=settings.document_workers,
            timeout=settings.document_timeout,
            memory=memory,
        )
        # A pool of their own: decoding an image takes milliseconds, and must not wait for documents.
        self._image_pool = DecoderPool(
            self._fork_server,
            label="image",
            num_slots=settings.picture_workers,
            timeout=settings.picture_timeout,
            memory=memory,
        )
        self.speech_encoder = SpeechEncoder(self._fork_server, num_slots=settings.speech_encoders)
        """Encodes the speech of answers, in processes of the same fork server."""
        self._fetch_slots = FetchSlots(settings.media_concurrency, settings.media_timeout)
        self._memory = MemoryPool(settings.media_held_bytes)
        self.uploads = Uploads(settings, self._fetcher, self._fetch_slots)
        """Receives recordings and videos."""
        self.recordings = Recordings(settings, self._fork_server, self.uploads, self._memory)
        self.videos = Videos(settings, self._fork_server, self.uploads)
        self.compositions = Compositions(settings, self._image_pool, self.new_budget)
        self.request_timeout = settings.media_request_timeout
        """Timeout of all references of one request together, in seconds (`Budget.run_with_timeout`)."""
        self._active_tasks: set[asyncio.Task[object]] = set()
        self._closed = False

    async def close(self) -> None:
        """Cancel all tasks that load a file, and end the processes."""
        self._closed = True
        for task in self._active_tasks:
            task.cancel()
        await asyncio.gather(*self._active_tasks, return_exceptions=True)
        await self._fork_server.close()

    def new_budget(self, caller: str) -> Budget:
        """Return the budget of one request of `caller`, to use in a `with`."""
        return Budget(
            caller,
            max_bytes=self._settings.media_request_max_bytes,
            max_pixels=self._settings.picture_request_max_pixels,
            memory=self._memory,
        )

    async def load_image(
        self, reference: str, *, param: str, budget: Budget, allow_base64: bool = False
    ) -> EncodedImage:
        """Return an encoded image that a decoder could decode completely.

        `reference` is an http(s) URL, a data URL or, if `allow_base64`, plain base64.
        """

        async def load() -> EncodedImage:
            return await self._verify_image(
                await self._fetch(reference, _IMAGE, budget, allow_base64=allow_base64), budget
            )

        return await self._run(param, budget, load)

    async def load_uploaded_image(self, data: bytes, *, param: str, budget: Budget) -> EncodedImage:
        """Return an image that was uploaded as a file of a form. Raises as `load_image` does."""

        async def load() -> EncodedImage:
            if len(data) > self._settings.media_max_bytes:
                raise inline_data.too_large_error(self._settings.media_max_bytes)
            budget.acquire(len(data))
            return await self._verify_image(sniff_blob(data, _IMAGE), budget)

        return await self._run(param, budget, load)

    async def load_first_frame(self, data: bytes, size: tuple[int, int], *, param: str, budget: Budget) -> bytes:
        """Return the first frame of a video of `size`: `data`, an encoded image, scaled and cropped (PNG).

        Raises as `load_image` does.
        """

        async def load() -> bytes:
            if len(data) > self._settings.media_max_bytes:
                raise inline_data.too_large_error(self._settings.media_max_bytes)
            budget.acquire(len(data))
            blob = sniff_blob(data, _IMAGE)
            task = {
                "task": "first_frame",
                "media_type": blob.media_type,
                "max_pixels": self._settings.picture_max_pixels,
                "width": size[0],
                "height": size[1],
            }
            _, frame = await self._image_pool.decode(
                task, data, budget=budget, max_body_bytes=_MAX_FRAME_OVERHEAD + 4 * size[0] * size[1]
            )
            return frame

        return await self._run(param, budget, load)

    async def _verify_image(self, blob: Blob, budget: Budget) -> EncodedImage:
        task = {
            "task": "image",
            "media_type": blob.media_type,
            "max_pixels": self._settings.picture_max_pixels,
            "pixels_left": budget.pixels_left,
        }
        found, _ = await self._image_pool.decode(task, blob.data, budget=budget, max_body_bytes=0)
        width, height = _dimension(found, "width"), _dimension(found, "height")
        budget.take_pixels(width * height)
        return EncodedImage(data=blob.data, media_type=blob.media_type, width=width, height=height)

    async def load_document(self, reference: str, *, filename: str | None = None, param: str, budget: Budget) -> str:
        """Return the text of a document. A `filename` of HTML makes a text file be read as HTML."""

        async def load() -> str:
            blob = await self._fetch(reference, _DOCUMENT, budget, allow_base64=True)
            task = {
                "task": "document",
                "media_type": blob.media_type,
                "is_html": (filename or blob.name).lower().endswith(_HTML_SUFFIXES)
                or blob.declared_type.endswith("html"),
                "max_characters": self._settings.document_max_characters,
            }
            max_body_bytes = 4 * self._settings.document_max_characters
            async with budget.decode_lock:
                _, text = await self._document_pool.decode(
                    task, blob.data, budget=budget, max_body_bytes=max_body_bytes
                )
            return text.decode(errors="replace")

        return await self._run(param, budget, load)

    async def load_audio(self, data_base64: str, declared_format: AudioFormat, *, param: str, budget: Budget) -> Audio:
        """Return the samples of audio in base64 or a data URL. The format is detected, not taken from the request."""

        async def load() -> Audio:
            if importlib.util.find_spec("av") is None:
                raise InvalidMedia("this gateway decodes no audio, as its extra 'audio' (PyAV) is not installed")
            if data_base64[:8].lower().startswith(("http:", "https:")):
                raise InvalidMedia(f"expected {declared_format} audio in base64, not a URL")
            blob = await self._fetch(data_base64, _AUDIO, budget, allow_base64=True)
            seconds = self._settings.sound_max_seconds
            task = {"task": "audio", "container": sniffing.AUDIO_CONTAINERS[blob.media_type], "max_seconds": seconds}
            max_body_bytes = int(seconds * _SAMPLE_RATE) * 4
            async with budget.decode_lock:
                _, data = await self._document_pool.decode(
                    task, blob.data, budget=budget, max_body_bytes=max_body_bytes
                )
            return Audio(data=data, seconds=len(data) / 4 / _SAMPLE_RATE)

        return await self._run(param, budget, load)

    async def _run(self, param: str, budget: Budget, work: Callable[[], Awaitable[Result]]) -> Result:
        """Run `work` unless this loader is closed. Report a bad reference as an error of the field `param`."""
        if self._closed:
            raise Overloaded("The service is stopping.", retry_after=RETRY_AFTER_SECONDS)
        task = asyncio.current_task()
        assert task is not None
        self._active_tasks.add(task)
        try:
            async with budget.slots:
                return await work()
        except InvalidMedia as error:
            raise InvalidRequest(f"Invalid value for '{param}': {error}.", param=param) from None
        finally:
            self._active_tasks.discard(task)

    async def _fetch(
        self, reference: str, accept: Collection[MediaKind], budget: Budget, *, allow_base64: bool
    ) -> Blob:
        limit = self._settings.media_max_bytes
        scheme = reference[:8].lower()
        declared = name = ""
        if scheme.startswith(("http://", "https://")):
            fetched = await self._download(reference, budget)
            data, declared, name = fetched.data, fetched.declared_type, fetched.name
        elif scheme.startswith("data:"):
            text, declared = inline_data.parse_data_url(reference, limit=limit)
            data = await self._decode_inline(text, budget)
        elif allow_base64 and "://" not in reference[:64]:
            data = await self._decode_inline(inline_data.parse_base64(reference, limit=limit), budget)
        else:
            alternatives = "a data URL or base64" if allow_base64 else "or a data URL"
            raise InvalidMedia(f"expected an http or https URL, {alternatives}")
        return replace(sniff_blob(data, accept), declared_type=declared, name=name)

    async def _decode_inline(self, text: inline_data.EncodedText, budget: Budget) -> bytes:
        limit = self._settings.media_max_bytes
        if not text.has_percent_escapes():
            data = await inline_data.decode(text, limit=limit)
        else:
            encoded = text.to_bytes()
            if len(encoded) <= _MAX_INLINE_ESCAPE_BYTES:
                data = percent_encoding.decode_percent_encoding(encoded, base64=text.base64)
            else:
                task = {"task": "percent_decode", "base64": text.base64}
                _, data = await self._document_pool.decode(task, encoded, budget=budget, max_body_bytes=limit)
        budget.acquire(len(data))
        return data

    async def _download(self, url: str, budget: Budget) -> FetchedFile:
        caller = budget.caller
        with budget.waiting_for_slot():
            await self._fetch_slots.acquire(caller)
        try:
            return await self._fetcher.fetch(url, budget.acquire, caller=caller)
        finally:
            self._fetch_slots.release(caller)


def _dimension(found: Mapping[str, object], name: str) -> int:
    """Return a width or height that a child reported. A manipulated child may report anything."""
    side = found.get(name)
    if not isinstance(side, int) or side < 1:
        raise InvalidMedia("the image is damaged or truncated")
    return side
