"""The voices of a speech model, and what else its parameters tell of the speech."""

import base64
import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

Parameters: TypeAlias = Mapping[str, str]
Gender: TypeAlias = Literal["female", "male"]

DEFAULT_SAMPLE_RATE = 24_000
"""Samples a second, where the model does not say how many."""
DEFAULT_MAX_CHARACTERS = 100_000
"""Characters of a text, where the model does not say how many."""

OPENAI_VOICES: Mapping[Gender, Sequence[str]] = {
    "female": ("alloy", "coral", "marin", "nova", "sage", "shimmer"),
    "male": ("ash", "ballad", "cedar", "echo", "fable", "onyx", "verse"),
}
"""OpenAI's names of voices. Name i of a gender stands for voice i of the model's voices of that gender."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A recording of a voice, which a model imitates: mono float32 samples, little-endian, and what they say."""

    samples: bytes
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """A voice of a model. `language` is a code of BCP 47; empty: unknown."""

    id: str
    name: str
    language: str = ""
    gender: Gender | None = None
    reference: Reference | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class SpeechCard:
    """The parameters of a speech model. Every voice of an empty `voices` is the model's own matter."""

    voices: tuple[Voice, ...] = ()
    default_voice: str | None = None
    """The id of the voice that speaks where the request names none; None: the model decides."""
    languages: tuple[str, ...] = ()
    sample_rate: int = DEFAULT_SAMPLE_RATE
    """Samples a second, for models whose responses do not tell it."""
    max_characters: int = DEFAULT_MAX_CHARACTERS
    follows_instructions: bool = False
    """True: the model takes `instructions` about the manner of speaking."""
    overlap_seconds: float = 0.0
    """Seconds by which each response overlaps the one before it. The gateway blends them."""

    def find_voice(self, name: str) -> Voice | None:
        """Return the voice of an id, of a name (in any case), or of one of OpenAI's names; None if there is none."""
        return self._by_name.get(name) or self._by_name.get(name.casefold())

    def accepts_voice(self, name: str) -> bool:
        """Return whether a request may name this voice.

        A model that declares no voices speaks with its own for each of OpenAI's names: OpenAI's clients require one.
        """
        if not self.voices:
            return any(name.lower() in names for names in OPENAI_VOICES.values())
        return self.find_voice(name) is not None

    def aliases(self, voice: Voice) -> list[str]:
        """Return the names of OpenAI's voices that stand for `voice`."""
        return [alias for alias, found in self._openai_voices.items() if found is voice]

    def describe_voices(self) -> str:
        """Return the ids of the voices, for an error message."""
        return ", ".join(voice.id for voice in self.voices)

    @cached_property
    def default(self) -> Voice | None:
        """The default voice, else the first."""
        return next((voice for voice in self.voices if voice.id == self.default_voice), None) or next(
            iter(self.voices), None
        )

    @cached_property
    def _openai_voices(self) -> Mapping[str, Voice]:
        """The voice that each of OpenAI's names stands for, unless the model has a voice of that name.

        Candidates are the voices of the default voice's language. Where the model tells no genders, or has no voice of
        one, all of them stand for it. The default voice comes first.
        """
        default = self.default
        if default is None:
            return {}
        language = _primary(default.language)
        candidates = [default, *(v for v in self.voices if v is not default and _primary(v.language) == language)]
        own = {name.casefold() for voice in self.voices for name in (voice.id, voice.name)}
        found: dict[str, Voice] = {}
        for gender, names in OPENAI_VOICES.items():
            voices = [voice for voice in candidates if voice.gender == gender] or candidates
            found |= {name: voices[at % len(voices)] for at, name in enumerate(names) if name not in own}
        return found

    @cached_property
    def _by_name(self) -> Mapping[str, Voice]:
        found: dict[str, Voice] = dict(self._openai_voices)
        for voice in reversed(self.voices):
            found[voice.name.casefold()] = voice
        for voice in reversed(self.voices):
            found[voice.id.casefold()] = found[voice.id] = voice
        return found


def parse_speech(parameters: Parameters) -> SpeechCard:
    """Parse the parameters of a speech model. Raises `ValueError`, `KeyError` or `TypeError` for an invalid value."""
    voices = tuple(_parse_voice(entry) for entry in json.loads(parameters.get("voices", "[]")))
    default = parameters.get("default_voice") or None
    if len({voice.id for voice in voices}) != len(voices):
        raise ValueError("two voices have the same id")
    if default is not None and default not in {voice.id for voice in voices}:
        raise ValueError(f"default_voice {default!r} is not among the voices")
    return SpeechCard(
        voices=voices,
        default_voice=default,
        languages=_languages(json.loads(parameters.get("languages", "[]")), voices),
        sample_rate=_positive(parameters, "sample_rate", DEFAULT_SAMPLE_RATE),
        max_characters=_positive(parameters, "max_characters", DEFAULT_MAX_CHARACTERS),
        follows_instructions=parameters.get("follows_instructions", "false") == "true",
        overlap_seconds=float(parameters.get("overlap_seconds", "0")),
    )


def encode_reference(samples: "array[float]") -> str:
    """Return the samples of a recording as `_parse_voice` reads them: base64 of little-endian float32."""
    return base64.b64encode(samples.tobytes()).decode()


def _parse_voice(entry: Any) -> Voice:
    """Return a voice of the parameter `voices`: an object, or an id alone."""
    if isinstance(entry, str):
        entry = {"id": entry}
    voice_id = entry["id"]
    if not isinstance(voice_id, str) or not voice_id:
        raise ValueError(f"the id of a voice is {voice_id!r}")
    gender = entry.get("gender")
    reference = None
    if entry.get("reference") is not None:
        reference = Reference(base64.b64decode(entry["reference"]), entry.get("reference_text", ""))
    return Voice(
        id=voice_id,
        name=str(entry.get("name") or voice_id),
        language=str(entry.get("language") or ""),
        gender=gender if gender in OPENAI_VOICES else None,
        reference=reference,
    )


def _languages(declared: Any, voices: Iterable[Voice]) -> tuple[str, ...]:
    """Return the languages of a model: those that it declares, or those of its voices."""
    languages = declared or [voice.language for voice in voices if voice.language]
    if not isinstance(languages, list) or not all(isinstance(language, str) for language in languages):
        raise ValueError("languages is not a list of strings")
    return tuple(dict.fromkeys(languages))


def _positive(parameters: Parameters, name: str, default: int) -> int:
    value = parameters.get(name, str(default))
    if not value.isdigit() or not int(value):
        raise ValueError(f"{name} is {value!r}; expected a positive integer")
    return int(value)


def _primary(language: str) -> str:
    return language.split("-")[0].lower()
