"""Loads the images, documents and audio that a request refers to, and inserts them into the turns of a chat."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeAlias, TypeVar

from fastapi import Request

from gateway.errors import InvalidRequest
from gateway.http import delivery
from gateway.http.json_limits import check_text_length
from gateway.http.offload import LARGE_BYTES, OffloadContext, offload_if_large
from gateway.http.request_images import RequestImages
from gateway.http.spoken_answers import SpokenAnswers
from gateway.media.loader import AudioFormat, MediaLoader
from gateway.operations.chat import ImagePart, Message, Part, TextPart

Loaded = TypeVar("Loaded")
Transcribe: TypeAlias = Callable[[bytes], Awaitable[str]]
"""Returns the transcription of mono float32 samples, 16,000 per second."""
Watch: TypeAlias = Callable[[Coroutine[Any, Any, None]], Awaitable[None]]
"""Awaits work, and raises `ClientDisconnected` as soon as the client disconnects."""


@dataclass(slots=True, eq=False)
class Reference(Generic[Loaded]):
    """An image, document or audio file that a request refers to. `MediaReferences.load` sets `loaded`.

    `sequential` references are loaded one after another: decoded audio may be large, and a model transcribes it.
    """

    load: Callable[[], Awaitable[Loaded]]
    sequential: bool = False
    loaded: Loaded | None = None

    async def resolve(self) -> None:
        """Load the file, and set `loaded`."""
        self.loaded = await self.load()


PartReference: TypeAlias = Reference[TextPart] | Reference[ImagePart]


@dataclass(frozen=True, slots=True)
class TurnDraft:
    """A turn of a conversation with the content `parts`, some still to be loaded. No parts: `turn` is complete."""

    turn: Message
    parts: Sequence[TextPart | PartReference] = ()

    def complete(self) -> Message:
        """Return the turn, whose references must be loaded. If all parts are text, they become one text, as in vLLM."""
        if not self.parts:
            return self.turn
        parts = [part.loaded if isinstance(part, Reference) else part for part in self.parts]
        texts = [part.text for part in parts if isinstance(part, TextPart)]
        content = "\n".join(texts) if len(texts) == len(parts) else tuple(part for part in parts if part is not None)
        return replace(self.turn, content=content)


class MediaReferences:
    """Loads the files that one request refers to, within one budget of bytes, pixels and time.

    `image`, `document` and `audio` return references that `load` then loads. `param` is the path of the body's field
    that holds the reference; errors name it.
    """

    def __init__(
        self,
        media: MediaLoader,
        trace: OffloadContext,
        *,
        images: RequestImages | None = None,
        spoken: SpokenAnswers | None = None,
        transcribe: Transcribe | None = None,
        watch: Watch = lambda work: work,
    ) -> None:
        """`images` finds images that this service has stored, `spoken` the texts of answers with audio.

        `transcribe` is None if no model transcribes audio. `watch` awaits the loading, see `Watch`.
        """
        self.trace = trace
        self._media = media
        self._budget = media.new_budget(trace.caller)
        self._load_image = images.load_image if images else media.load_image
        self._spoken = spoken
        self._transcribe = transcribe
        self._watch = watch

    @classmethod
    def of_request(cls, request: Request, transcribe: Transcribe | None = None) -> Self:
        """Return a loader for `request`, which stops as soon as the client disconnects."""
        return cls(
            request.app.state.media,
            request.state.trace,
            images=RequestImages(request),
            spoken=SpokenAnswers(request),
            transcribe=transcribe,
            watch=lambda work: delivery.whole(request, work),
        )

    @property
    def can_transcribe(self) -> bool:
        """True if a model that transcribes is served, so that `audio` may be called."""
        return self._transcribe is not None

    def image(self, reference: str, *, param: str, allow_base64: bool = False) -> Reference[ImagePart]:
        """Return a reference to an image: an http(s) URL, a data URL or, with `allow_base64`, plain base64."""

        async def load() -> ImagePart:
            image = await self._load_image(reference, allow_base64=allow_base64, param=param, budget=self._budget)
            return ImagePart(image.data)

        return Reference(load)

    def uploaded_image(self, data: bytes, *, param: str) -> Reference[ImagePart]:
        """Return a reference to an image that came as a file of a form."""

        async def load() -> ImagePart:
            image = await self._media.load_uploaded_image(data, param=param, budget=self._budget)
            return ImagePart(image.data)

        return Reference(load)

    def document(self, reference: str, *, filename: str | None, param: str) -> Reference[TextPart]:
        """Return a reference to the text of a document: an http(s) URL, a data URL or base64."""

        async def load() -> TextPart:
            text = await self._media.load_document(reference, filename=filename, param=param, budget=self._budget)
            name = (filename or "document").replace('"', "'")[:256]
            return TextPart(f'<file name="{name}">\n{text}\n</file>')

        return Reference(load)

    def audio(self, data: str, audio_format: AudioFormat, *, param: str) -> Reference[TextPart]:
        """Return a reference to the transcription of audio in base64 or a data URL. Requires `can_transcribe`."""
        transcribe = self._transcribe
        assert transcribe is not None

        async def load() -> TextPart:
            audio = await self._media.load_audio(data, audio_format, param=param, budget=self._budget)
            return TextPart(await transcribe(audio.data))

        return Reference(load, sequential=True)

    def spoken_answer(self, audio_id: str, *, param: str) -> Reference[TextPart]:
        """Return a reference to the text of an earlier answer with audio."""

        async def load() -> TextPart:
            text = await self._spoken.find(audio_id) if self._spoken else None
            if text is None:
                message = (
                    f"'{param}': there is no answer with this audio, or it has expired. Send its text as 'content'."
                )
                raise InvalidRequest(message, param=param)
            return TextPart(text)

        return Reference(load)

    async def load(self, references: Sequence[Reference[Any]], *, param: str) -> None:
        """Load all references, concurrently except for the sequential ones. The first failure cancels the others.

        Raises `InvalidRequest` and `UnsupportedOption`, `Overloaded` if too many other files are being loaded, and
        `ClientDisconnected`. The error of a timeout names the field `param`.
        """
        await self._watch(self._load(references, param))

    async def _load(self, references: Sequence[Reference[Any]], param: str) -> None:
        with self._budget as budget:
            tasks = [asyncio.create_task(reference.resolve()) for reference in references if not reference.sequential]
            try:
                await budget.run_with_timeout(self._media.request_timeout, asyncio.gather(*tasks), param=param)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            for reference in references:
                if reference.sequential:
                    await reference.resolve()

    def count(self, size: int) -> None:
        """Count `size` loaded bytes as part of the request, which may make it a large request.

        Raises `Overloaded` if the requests of the caller hold too much memory.
        """
        self.trace.is_large |= size > LARGE_BYTES
        if self.trace.reservation:
            self.trace.reservation.acquire(size)

    async def complete_turns(
        self, drafts: Sequence[TurnDraft], *, max_characters: int, param: str
    ) -> tuple[Message, ...]:
        """Load the references of a conversation, and return its turns. Raises as `load` does.

        Raises `RequestTooLarge` if documents and transcriptions have more than `max_characters` together. `param` is
        the field of the conversation.
        """
        if references := [part for draft in drafts for part in draft.parts if isinstance(part, Reference)]:
            await self.load(references, param=param)
            loaded: Iterable[Part | None] = [reference.loaded for reference in references]
            characters = sum(len(part.text) for part in loaded if isinstance(part, TextPart))
            check_text_length(characters, max_characters, param=param)
            self.count(characters + sum(len(part.data) for part in loaded if isinstance(part, ImagePart)))
        return await offload_if_large(self.trace, lambda: tuple([draft.complete() for draft in drafts]))
