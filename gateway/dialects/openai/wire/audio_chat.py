"""Chats with spoken answers, `modalities: ["text", "audio"]`: a chat model writes, and a speech model speaks.

https://platform.openai.com/docs/guides/audio. Each sentence is spoken while the chat model writes the next ones. The
text of the answer is the transcript of its audio. `audio.model` is not OpenAI's: the model that speaks.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fastapi import Request

from gateway.dialects.openai.wire.voices import WireVoice, find_speaking_model, voice_name
from gateway.errors import GatewayError, InvalidRequest, UnsupportedOption
from gateway.http.spoken_answers import SpokenAnswers, new_audio_id
from gateway.http.wire_model import WireModel
from gateway.media.encoders.formats import SpeechFormat
from gateway.media.loader import MediaLoader
from gateway.media.speech_encoder import Encoded, check_format
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations import chat
from gateway.operations.chat import ChatEvent
from gateway.operations.speak import Speak, SpeechEvent
from gateway.operations.text import Delta, Finish, Usage
from gateway.prompting.sentences import SentenceSplitter

if TYPE_CHECKING:
    from gateway.dialects.openai.wire.chat import CreateChatCompletionRequest

_MAX_QUEUED = 64
"""Events that wait for a slow reader, before both models are slowed down."""


class AudioOutput(WireModel):
    """The voice and the format of spoken answers."""

    voice: WireVoice
    format: Literal["wav", "aac", "mp3", "flac", "opus", "pcm16"]
    model: str | None = None


@dataclass(frozen=True, slots=True)
class AudioPart:
    """The next bytes of the audio."""

    data: bytes


@dataclass(frozen=True, slots=True)
class AudioEnd:
    """The audio is complete. Its transcript is known until `expires_at`, in Unix seconds."""

    expires_at: int


AudioChatEvent: TypeAlias = ChatEvent | AudioPart | AudioEnd


@dataclass(frozen=True, slots=True)
class Speech:
    """How the answer to a request is spoken. `audio_id` is the id of its audio.

    The model takes texts of up to `max_characters`.
    """

    model: str
    voice: str
    format: SpeechFormat
    audio_id: str
    max_characters: int


def parse_speech(
    body: "CreateChatCompletionRequest",
    models: Callable[[], Sequence[Model]],
    find_model: Callable[[str], Model],
    *,
    writes_text: bool,
) -> Speech | None:
    """Return how the answer is spoken; None for an answer without audio.

    `models` returns the models that the caller may use, `find_model` the one of a name that speaks. `writes_text` is
    False for a model that answers with images. Raises `InvalidRequest` and `UnsupportedOption`, and as the catalog.
    """
    audio = body.audio
    if "audio" not in (body.modalities or ()):
        if audio is not None:
            raise InvalidRequest("'audio' is only allowed where 'modalities' has 'audio'.", param="audio")
        return None
    if audio is None:
        raise InvalidRequest("Where 'modalities' has 'audio', 'audio' must have a voice and a format.", param="audio")
    if not writes_text:
        raise UnsupportedOption("The answers of this model have no text that could be spoken.", param="modalities")
    _reject_options(body, audio)
    voice = voice_name(audio.voice) or ""
    model = find_speaking_model(models() if audio.model is None else [_named(audio.model, find_model)], voice)
    encoding: SpeechFormat = "pcm" if audio.format == "pcm16" else audio.format
    check_format(encoding, model.card.speech.sample_rate, param="audio.format")
    return Speech(model.name, voice, encoding, new_audio_id(), model.card.speech.max_characters)


def _named(name: str, find_model: Callable[[str], Model]) -> Model:
    try:
        return find_model(name)
    except GatewayError as error:
        error.param = "audio.model" if error.param == "model" else error.param
        raise


def _reject_options(body: "CreateChatCompletionRequest", audio: AudioOutput) -> None:
    if body.stream and audio.format != "pcm16":
        raise UnsupportedOption(
            f"'audio.format' cannot be '{audio.format}' when 'stream' is true; use 'pcm16'.", param="audio.format"
        )
    if (body.n or 1) > 1:
        raise UnsupportedOption("Only one answer can have audio: 'n' must be 1.", param="n")
    structured = body.response_format is not None and body.response_format.type != "text"
    for name, is_set in (
        ("response_format", structured),
        ("structured_outputs", body.structured_outputs is not None),
        ("guided_json", body.guided_json is not None),
        ("guided_regex", body.guided_regex is not None),
        ("guided_choice", body.guided_choice is not None),
        ("guided_grammar", body.guided_grammar is not None),
        ("logprobs", bool(body.logprobs)),
    ):
        if is_set:
            raise UnsupportedOption(f"Answers with audio do not support '{name}'.", param=name)


async def run(
    catalog: Catalog, model: Model, operation: chat.Chat, speech: Speech, request: Request
) -> AsyncGenerator[AudioChatEvent]:
    """Yield the events of the answer, its audio while it is spoken, and at the end `Finish` and `Usage`.

    Closing the iterator cancels both models. Raises a `GatewayError` for every failure of one of them.
    """
    conversation = _SpokenChat(catalog, speech, request)
    tasks = [
        asyncio.create_task(conversation.guard(work))
        for work in (
            conversation.write(catalog.run(model, operation, request.state.trace)),
            conversation.speak(),
        )
    ]
    try:
        while not isinstance(event := await conversation.events.get(), _End):
            yield event
        if event.error is not None:
            raise event.error
        if conversation.has_audio:
            text = "".join(conversation.text)
            yield AudioEnd(await SpokenAnswers(request).store(speech.audio_id, text))
        for last in conversation.last_events:
            yield last
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        request.state.trace.model = model.name  # not that of the model which spoke last


@dataclass(frozen=True, slots=True)
class _End:
    """Both models have ended, or one of them has failed."""

    error: BaseException | None = None


class _SpokenChat:
    """The answer of two models that work at the same time: `write` and `speak` run in tasks of their own."""

    def __init__(self, catalog: Catalog, speech: Speech, request: Request) -> None:
        self.events: asyncio.Queue[AudioChatEvent | _End] = asyncio.Queue(_MAX_QUEUED)
        self.text: list[str] = []
        self.last_events: list[ChatEvent] = []
        self.has_audio = False
        self._sentences: asyncio.Queue[str | None] = asyncio.Queue()
        self._catalog, self._speech = catalog, speech
        self._trace = request.state.trace
        self._media: MediaLoader = request.app.state.media

    async def guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Await `work`, and report its failure."""
        try:
            await work
        except Exception as error:
            await self.events.put(_End(error))

    async def write(self, answer: AsyncGenerator[ChatEvent]) -> None:
        """Pass on what the chat model writes, sentence by sentence also to `speak`."""
        splitter = SentenceSplitter(self._speech.max_characters)
        async with aclosing(answer):
            async for event in answer:
                if isinstance(event, Finish | Usage):
                    self.last_events.append(event)
                    continue
                await self.events.put(event)
                if isinstance(event, Delta) and event.text:
                    self.text.append(event.text)
                    for sentence in splitter.feed(event.text):
                        self._sentences.put_nowait(sentence)
        for sentence in splitter.finish():
            self._sentences.put_nowait(sentence)
        self._sentences.put_nowait(None)

    async def speak(self) -> None:
        """Speak the sentences as one file, and end the events."""
        encoded: AsyncGenerator[Encoded] = self._media.speech_encoder.encode(
            self._spoken(), self._speech.format, self._trace.caller
        )
        async with aclosing(encoded):
            async for part in encoded:
                if isinstance(part, bytes):
                    self.has_audio = True
                    await self.events.put(AudioPart(part))
        await self.events.put(_End())

    async def _spoken(self) -> AsyncGenerator[SpeechEvent]:
        while (sentence := await self._sentences.get()) is not None:
            operation = Speak(model=self._speech.model, text=sentence, voice=self._speech.voice)
            events = self._catalog.run_by_name(self._speech.model, operation, self._trace)
            try:
                async with aclosing(events):
                    async for event in events:
                        yield event
            except InvalidRequest as error:  # the caller did not write the text
                raise UnsupportedOption(f"The answer cannot be spoken: {error.message}", param="audio.voice") from None
