"""Models of the events and answers of speech, and the documentation of their routes."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.http.openapi_responses import INFERENCE_FAILURES, LIST_FAILURES, Responses
from gateway.media.encoders.formats import CODECS


class SpeechAudioDeltaEvent(BaseModel):
    """The next bytes of the file, in base64."""

    type: Literal["speech.audio.delta"]
    audio: str


class SpeechTokens(BaseModel):
    """Tokens of the speech, as the model counts them: those of the text, and those of the sound."""

    input_tokens: Annotated[int, Field(ge=0)]
    output_tokens: Annotated[int, Field(ge=0)]
    total_tokens: Annotated[int, Field(ge=0)]


class SpeechAudioDoneEvent(BaseModel):
    """The end of the speech."""

    type: Literal["speech.audio.done"]
    usage: SpeechTokens


class Voice(BaseModel):
    """A voice of a model. `aliases` are the names of OpenAI's voices that stand for it."""

    id: str
    object: Literal["voice"]
    name: str
    language: Annotated[str | None, Field(description="A code of BCP 47; null: unknown.")]
    gender: Literal["female", "male"] | None
    model: str
    default: bool
    aliases: list[str]


class ListVoicesResponse(BaseModel):
    """All voices that can be requested now."""

    object: Literal["list"]
    data: list[Voice]
    code: Literal[0]
    message: Literal["success"]


STREAM_EVENTS: tuple[type[BaseModel], ...] = (SpeechAudioDeltaEvent, SpeechAudioDoneEvent)

SPEECH_RESPONSES: Responses = OPENAI_DOCS.file_responses(
    tuple(codec.content_type for codec in CODECS.values()),
    INFERENCE_FAILURES,
    description="The speech, while it is spoken; with `stream_format` `sse`, events with the same bytes.",
    event=SpeechAudioDeltaEvent,
    event_example={"type": "speech.audio.delta", "audio": "SUQzBAAAAAAA"},
    more_events=(SpeechAudioDoneEvent,),
)
VOICES_RESPONSES: Responses = OPENAI_DOCS.responses(
    ListVoicesResponse,
    LIST_FAILURES,
    description="The voices.",
    example={
        "object": "list",
        "data": [
            {
                "id": "heart",
                "object": "voice",
                "name": "Heart",
                "language": "en-US",
                "gender": "female",
                "model": "kokoro-82m",
                "default": True,
                "aliases": ["alloy"],
            }
        ],
        "code": 0,
        "message": "success",
    },
)


def platform_voices_responses() -> dict[int | str, dict[str, Any]]:
    """Return the documentation of the voices of a platform, which may not exist."""
    return {
        **VOICES_RESPONSES,
        404: OPENAI_DOCS.responses(ListVoicesResponse, (404,), description="", example={})[404],
    }
