"""Speech requests and their answers: https://platform.openai.com/docs/api-reference/audio/createSpeech

`language` is not OpenAI's. A request without `voice` gets the model's default.
"""

import base64
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Annotated, Literal

import orjson
from fastapi import Request
from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema
from starlette.responses import Response

from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.openai.wire.voices import WireVoice, voice_name
from gateway.errors import InvalidRequest
from gateway.http import delivery
from gateway.http.delivery import NamedEvent
from gateway.http.wire_model import WireModel
from gateway.media.encoders.formats import SpeechFormat
from gateway.media.loader import MediaLoader
from gateway.media.speech_encoder import Encoded, check_format, content_type
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations.speak import Speak, SpeechUsage
from gateway.settings import Settings

_OPENAI_MAX_CHARACTERS = 4096
_EVENT_BYTES = 96_000
"""Most bytes of an event, before base64: two seconds of PCM."""
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Proxies must neither buffer nor cache what is being spoken."""


def _check_not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


class CreateSpeechRequest(WireModel):
    """The body of a speech request. Fields not named here are ignored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "hibari", "input": "Good morning. The train leaves at 7:45.", "voice": "alloy"},
                {"model": "hibari", "input": "Good morning.", "response_format": "wav", "stream_format": "audio"},
            ]
        }
    )

    model: str
    input: Annotated[
        str,
        AfterValidator(_check_not_blank),
        WithJsonSchema({"type": "string", "minLength": 1, "maxLength": _OPENAI_MAX_CHARACTERS, "pattern": r"\S"}),
    ]
    voice: WireVoice | None = None
    response_format: SpeechFormat | None = None
    speed: Annotated[float | None, Field(ge=0.25, le=4)] = None
    stream_format: Literal["audio", "sse"] | None = None
    instructions: Annotated[str | None, Field(max_length=4096)] = None
    language: Annotated[str | None, Field(max_length=35, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] = None

    @property
    def encoding(self) -> SpeechFormat:
        """The format of the speech; OpenAI's default is MP3."""
        return self.response_format or "mp3"


def parse_request(body: CreateSpeechRequest, model: Model, request: Request) -> Speak:
    """Return the operation of `body`. Raises `InvalidRequest` and `UnsupportedOption`."""
    settings: Settings = request.app.state.settings
    if len(body.input) > settings.speech_max_characters:
        raise InvalidRequest(
            f"Invalid value for 'input': it has {len(body.input)} characters, and at most "
            f"{settings.speech_max_characters} are spoken.",
            param="input",
        )
    check_format(body.encoding, model.card.speech.sample_rate, param="response_format")
    return Speak(
        model=model.name,
        text=body.input,
        voice=voice_name(body.voice),
        language=body.language,
        speed=body.speed,
        instructions=body.instructions or None,
    )


async def respond(body: CreateSpeechRequest, model: Model, request: Request) -> Response:
    """Return the speech while it is spoken: the bytes of a file, or server-sent events.

    Raises `GatewayError` for a failure before the first part of the speech, and `ClientDisconnected`.
    """
    catalog: Catalog = request.app.state.catalog
    media: MediaLoader = request.app.state.media
    events = catalog.run(model, parse_request(body, model, request), request.state.trace)
    encoded = media.speech_encoder.encode(events, body.encoding, request.state.trace.caller)
    if body.stream_format == "sse":
        return await delivery.sse(request, _with_usage(encoded), render_event, OPENAI_ERRORS.render_event, b"[DONE]")
    return await delivery.raw(request, _without_usage(encoded), content_type(body.encoding), headers=_HEADERS)


async def _without_usage(encoded: AsyncGenerator[Encoded]) -> AsyncGenerator[bytes]:
    async with aclosing(encoded):
        async for part in encoded:
            if isinstance(part, bytes):
                yield part


async def _with_usage(encoded: AsyncGenerator[Encoded]) -> AsyncGenerator[Encoded]:
    """Yield the same parts, and zeros where the model counts no tokens: clients cannot do without `usage`."""
    usage: Encoded = SpeechUsage(0, 0)
    async with aclosing(encoded):
        async for part in encoded:
            if isinstance(part, bytes):
                yield part
            else:
                usage = part
    yield usage


def render_event(part: Encoded) -> Iterable[NamedEvent]:
    """Yield the events of a part of the file, or the one at its end."""
    if isinstance(part, bytes):
        name = "speech.audio.delta"
        for at in range(0, len(part), _EVENT_BYTES):
            data = base64.b64encode(part[at : at + _EVENT_BYTES]).decode()
            yield NamedEvent(name, orjson.dumps({"type": name, "audio": data}))
        return
    usage = {
        "input_tokens": part.prompt_tokens,
        "output_tokens": part.completion_tokens,
        "total_tokens": part.prompt_tokens + part.completion_tokens,
    }
    name = "speech.audio.done"
    yield NamedEvent(name, orjson.dumps({"type": name, "usage": usage}))
