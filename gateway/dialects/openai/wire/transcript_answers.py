"""Answers to transcriptions and translations: whole in any format, or as server-sent events."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any

import orjson
from fastapi import Request
from starlette.responses import Response

from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.openai.wire.transcriptions import CreateTranscriptionRequest, SpeechFields
from gateway.http import delivery
from gateway.http.delivery import NamedEvent
from gateway.http.openapi_responses import Responses
from gateway.operations.transcribe import Transcribe
from gateway.operations.transcript import CONTENT_TYPES, Transcript, render_logprobs
from gateway.operations.transcript_events import Segment, TranscriptionEnd, TranscriptionEvent


async def answer(
    request: Request,
    body: SpeechFields,
    operation: Transcribe,
    events: AsyncGenerator[TranscriptionEvent],
    *,
    success: Mapping[str, Any],
) -> Response:
    """Return the response to `body` with the events of its `operation`. `success` are further fields of JSON.

    Raises a `GatewayError`, and `ClientDisconnected`.
    """
    transcript = Transcript(operation.task, operation.temperature)
    with_languages = isinstance(body, CreateTranscriptionRequest) and bool(body.languages)
    if body.stream:
        renderer = TranscriptEventRenderer(transcript, logprobs=operation.logprobs, languages=with_languages)
        return await delivery.sse(request, events, renderer.render, OPENAI_ERRORS.render_event, b"[DONE]")
    await delivery.whole(request, _collect(events, transcript))
    media_type = CONTENT_TYPES[operation.output_format]
    match operation.output_format:
        case "json":
            fields = transcript.json(logprobs=operation.logprobs, languages=with_languages)
            return Response(orjson.dumps({**fields, **success}), media_type=media_type)
        case "verbose_json":
            wanted = body.granularities if isinstance(body, CreateTranscriptionRequest) else {"segment"}
            fields = transcript.verbose(segments="segment" in wanted, words="word" in wanted)
            return Response(orjson.dumps({**fields, **success}), media_type=media_type)
        case "text":
            return Response(f"{transcript.text}\n", media_type=media_type)
        case _:
            return Response(transcript.render(operation.output_format), media_type=media_type)


async def _collect(events: AsyncGenerator[TranscriptionEvent], transcript: Transcript) -> None:
    async with aclosing(events):
        async for event in events:
            transcript.add(event)


class TranscriptEventRenderer:
    """Renders the events of a transcription as the named events of a stream."""

    def __init__(self, transcript: Transcript, *, logprobs: bool, languages: bool) -> None:
        """`transcript` collects the events. `languages`: the last event has the language that was found."""
        self._transcript = transcript
        self._logprobs = logprobs
        self._languages = languages
        self._has_text = False

    def render(self, event: TranscriptionEvent) -> Iterable[NamedEvent]:
        """Yield the event of a segment, and that of the end; other events become none."""
        self._transcript.add(event)
        if isinstance(event, Segment):
            delta = event.text if self._has_text else event.text.lstrip()
            self._has_text |= bool(delta)
            more = {"logprobs": render_logprobs(event.logprobs)} if self._logprobs else {}
            yield _named("transcript.text.delta", {"delta": delta, **more})
        elif isinstance(event, TranscriptionEnd):
            whole = self._transcript.json(logprobs=self._logprobs, languages=self._languages)
            if self._transcript.token_usage() is None:
                del whole["usage"]  # the event has a place for tokens only
            yield _named("transcript.text.done", whole)


def _named(name: str, fields: Mapping[str, Any]) -> NamedEvent:
    return NamedEvent(name, orjson.dumps({"type": name, **fields}))


def document_texts(responses: Responses) -> Responses:
    """Add the formats that are no JSON to the documentation of a route's responses, and return it."""
    examples = {"text": "Hello.\n", "srt": "1\n00:00:00,000 --> 00:00:01,200\nHello.\n\n"}
    examples["vtt"] = "WEBVTT\n\n00:00:00.000 --> 00:00:01.200\nHello.\n\n"
    for name, example in examples.items():
        media_type = CONTENT_TYPES[name]  # type: ignore[index]
        responses[200]["content"][media_type.partition(";")[0]] = {"schema": {"type": "string"}, "example": example}
    return responses
