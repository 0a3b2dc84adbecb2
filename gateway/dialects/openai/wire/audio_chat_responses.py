"""Answers with audio, whole and streamed: https://platform.openai.com/docs/guides/audio"""

import asyncio
import base64
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import Request
from starlette.responses import Response

from gateway.dialects.openai.wire.audio_chat import AudioChatEvent, AudioEnd, AudioPart, Speech
from gateway.dialects.openai.wire.chat_responses import ChatChunkRenderer, render
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.http import delivery
from gateway.media.speech_encoder import complete_wav
from gateway.operations import chat
from gateway.operations.chat import Answer, ChatEvent
from gateway.operations.text import Delta, Usage

if TYPE_CHECKING:
    from gateway.dialects.openai.wire.chat import CreateChatCompletionRequest

_BASE64_BYTES = 6
"""Parts of streamed audio are multiples of this, so that their base64 can be joined: three samples."""

_EVENT_BYTES = 96_000
"""Most bytes of audio in a chunk, before base64: two seconds. A multiple of `_BASE64_BYTES`."""


async def respond(
    body: "CreateChatCompletionRequest",
    request: Request,
    events: AsyncGenerator[AudioChatEvent],
    speech: Speech,
    head: Mapping[str, Any],
    *,
    nulls: bool,
    more: Mapping[str, Any],
) -> Response:
    """Return the answer of `events`. `nulls` is that of `render`; `more` are further fields of a whole answer."""
    legacy = body.uses_legacy_functions
    if body.wants_stream:
        chunks = AudioChunkRenderer(
            head, include_usage=body.include_usage, logprobs=False, nulls=nulls, legacy=legacy, speech=speech
        )
        return await delivery.sse(request, events, chunks.render, OPENAI_ERRORS.render_event, b"[DONE]")
    answers, usage, audio = await delivery.whole(request, gather(events, speech))
    fields = render(answers, usage, logprobs=False, nulls=nulls, legacy=legacy)
    if audio is not None:  # it has the text as its transcript
        fields["choices"][0]["message"] |= {"content": None, "audio": audio}
    return Response(orjson.dumps({**head, **fields, **more}), media_type="application/json")


async def gather(
    events: AsyncGenerator[AudioChatEvent], speech: Speech
) -> tuple[list[Answer], Usage | None, dict[str, Any] | None]:
    """Collect a stream. Return the answer, the token counts, and OpenAI's `audio` of its message if it has any."""
    parts = bytearray()
    expires_at = 0

    async def without_audio() -> AsyncGenerator[ChatEvent]:
        nonlocal expires_at
        async with aclosing(events):
            async for event in events:
                if isinstance(event, AudioPart):
                    parts.extend(event.data)
                elif isinstance(event, AudioEnd):
                    expires_at = event.expires_at
                else:
                    yield event

    answers, usage = await chat.gather(without_audio())
    if not parts:
        return answers, usage, None
    # Minutes of audio in base64 would block the event loop.
    data = await asyncio.to_thread(
        lambda: base64.b64encode(complete_wav(bytes(parts)) if speech.format == "wav" else parts).decode()
    )
    text = answers[0].text if answers else ""
    return answers, usage, {"id": speech.audio_id, "data": data, "expires_at": expires_at, "transcript": text}


class AudioChunkRenderer(ChatChunkRenderer):
    """Renders the events of a spoken answer: its text is the transcript of the audio."""

    def __init__(self, *arguments: Any, speech: Speech, **options: Any) -> None:
        """The other parameters are those of `ChatChunkRenderer`."""
        super().__init__(*arguments, **options)
        self._speech = speech
        self._rest = b""
        self._has_id = False

    def render(self, event: AudioChatEvent) -> Iterable[bytes]:
        """Yield the JSON of the chunks for `event`."""
        if isinstance(event, AudioPart):
            data = self._rest + event.data
            size = len(data) // _BASE64_BYTES * _BASE64_BYTES
            self._rest = data[size:]
            for at in range(0, size, _EVENT_BYTES):
                yield self._audio({"data": base64.b64encode(data[at : min(at + _EVENT_BYTES, size)]).decode()})
        elif isinstance(event, AudioEnd):
            if self._rest:
                yield self._audio({"data": base64.b64encode(self._rest).decode()})
            yield self._audio({"expires_at": event.expires_at})
        elif isinstance(event, Delta):
            if event.text:
                yield from self._transcript(event.text)
        else:
            yield from super().render(event)

    def _transcript(self, text: str) -> Iterable[bytes]:
        if 0 not in self._begun:
            self._begun.add(0)
            role: dict[str, Any] = {"role": "assistant"}
            nulls = {"content": None, "refusal": None} if self._nulls else {}
            yield self._chunk(0, {**role, **nulls})
        self._thinking.discard(0)
        if not self._has_id:  # once only: clients join the texts of all chunks
            self._has_id = True
            yield self._audio({"id": self._speech.audio_id, "transcript": text})
        else:
            yield self._audio({"transcript": text})

    def _audio(self, fields: dict[str, Any]) -> bytes:
        return self._chunk(0, {"audio": fields})
