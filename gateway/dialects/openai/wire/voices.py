"""Voices in requests, and the list of them."""

from collections.abc import Iterable
from typing import Annotated, Any

import orjson
from pydantic import Discriminator, Field, Tag

from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.http.wire_model import UNION_TAG, WireModel
from gateway.models.servers import Model
from gateway.operations.speak import Speak

_MAX_LISTED_CHARACTERS = 2000
"""Characters of a list of voices in an error message."""


class VoiceID(WireModel):
    """A voice by its id."""

    id: Annotated[str, Field(min_length=1, max_length=256)]


WireVoice = Annotated[
    Annotated[str, Field(min_length=1, max_length=256), Tag(UNION_TAG + "name")]
    | Annotated[VoiceID, Tag(UNION_TAG + "id")],
    Discriminator(lambda value: UNION_TAG + ("name" if isinstance(value, str) else "id")),
]


def voice_name(voice: str | VoiceID | None) -> str | None:
    """Return the name or id of a voice; None where the model decides."""
    return voice.id if isinstance(voice, VoiceID) else voice


def render_voices(models: Iterable[Model]) -> bytes:
    """Return the JSON of the list of the voices of all `models` that speak."""
    data = [voice for model in models if Speak.operation in model.operations for voice in _render_model(model)]
    return orjson.dumps({"object": "list", "data": data, "code": 0, "message": "success"})


def _render_model(model: Model) -> Iterable[dict[str, Any]]:
    speech = model.card.speech
    for voice in speech.voices:
        yield {
            "id": voice.id,
            "object": "voice",
            "name": voice.name,
            "language": voice.language or None,
            "gender": voice.gender,
            "model": model.name,
            "default": voice is speech.default,
            "aliases": speech.aliases(voice),
        }


def find_speaking_model(models: Iterable[Model], voice: str) -> Model:
    """Return the first of `models` that has a voice. Raises `UnsupportedOption` and `InvalidRequest`."""
    speaking = [model for model in models if Speak.operation in model.operations]
    if not speaking:
        raise UnsupportedOption("No model speaks, so answers have no audio.", param="modalities")
    for model in speaking:
        if model.card.speech.accepts_voice(voice):
            return model
    known = ", ".join(model.card.speech.describe_voices() for model in speaking if model.card.speech.voices)
    known = known[:_MAX_LISTED_CHARACTERS] or "none"
    raise InvalidRequest(f"The voice '{voice[:100]}' does not exist. Voices: {known}.", param="audio.voice")
