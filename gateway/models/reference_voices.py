"""Voices of the models file: recordings that a text-to-speech model imitates.

[models.f5_tts.voices.anna]
reference_wav = "voices/anna.wav"
reference_text = "What the recording says."
language = "en"
gender = "female"
"""

import sys
import wave
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.model_card.speech import encode_reference

_MAX_SECONDS = 60
"""Length of a recording. The models were trained to imitate a few seconds, and every request carries the recording."""


class VoiceEntry(BaseModel):
    """A voice: its recording, and what the recording says. The path is relative to the models file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    reference_wav: str
    """A WAV file: mono, 16 bits, with the model's `reference_sample_rate`."""
    reference_text: Annotated[str, Field(min_length=1)]
    name: str | None = None
    language: str | None = None
    gender: Literal["female", "male"] | None = None


def read_voices(voices: Mapping[str, VoiceEntry], folder: Path, sample_rate: int) -> list[dict[str, Any]]:
    """Return the parameter `voices` of a model. Raises `ValueError` or `OSError` for a recording that is unusable."""
    return [
        {
            "id": name,
            "reference": encode_reference(_read_wav(folder / voice.reference_wav, sample_rate)),
            **voice.model_dump(exclude_none=True, exclude={"reference_wav"}),
        }
        for name, voice in voices.items()
    ]


def _read_wav(path: Path, sample_rate: int) -> "array[float]":
    """Return the samples of a recording, from -1 to 1."""
    try:
        with path.open("rb") as file, wave.open(file) as wav:
            form = (wav.getnchannels(), 8 * wav.getsampwidth(), wav.getframerate())
            if form != (1, 16, sample_rate):
                raise ValueError(
                    f"{path} has {form[0]} channels of {form[1]} bits and {form[2]} samples a second; convert it: "
                    f"ffmpeg -i FILE -ac 1 -ar {sample_rate} -c:a pcm_s16le NEW.wav"
                )
            if not 0 < wav.getnframes() <= _MAX_SECONDS * sample_rate:
                raise ValueError(f"{path} must have at most {_MAX_SECONDS} seconds of sound")
            samples = array("h", wav.readframes(wav.getnframes()))
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path} is not a WAV file of integers: {error}") from None
    if sys.byteorder == "big":
        samples.byteswap()
    return array("f", (sample / 32768 for sample in samples))
