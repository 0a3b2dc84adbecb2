"""The voices of a model and the languages that they speak."""

from collections.abc import Sequence
from dataclasses import dataclass

from backends.serving.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice, as the parameter `voices` describes it."""

    id: str
    name: str
    language: str
    """BCP-47: `en-US`."""


class Voices:
    """The voices of a model."""

    def __init__(self, voices: Sequence[Voice], default: str, *, mix_accents: bool) -> None:
        """`mix_accents`: every voice speaks the languages of all of them, not its own alone."""
        self._by_id = {voice.id: voice for voice in voices}
        self._default = self._by_id[default]
        self.languages = tuple(dict.fromkeys(voice.language for voice in voices))
        self._mix_accents = mix_accents

    def find(self, id: str | None) -> Voice:
        """Return the voice of that id, or the default voice. Raises `InvalidValue`, which lists the voices."""
        if not id:
            return self._default
        if id not in self._by_id:
            raise InvalidValue(f"There is no voice {id[:64]!r}; the voices are {', '.join(self._by_id)}.", "voice")
        return self._by_id[id]

    def language(self, voice: Voice, language: str | None) -> str:
        """Return the language to speak: that of the voice, or the one of its languages that was asked for.

        `en` is the voice's own English. Raises `InvalidValue`, which lists the languages.
        """
        if not language:
            return voice.language
        spoken = self.languages if self._mix_accents else (voice.language,)
        wanted = language.replace("_", "-").lower()
        for known in (voice.language, *spoken):
            if wanted in (known.lower(), known.lower().partition("-")[0]):
                return known
        raise InvalidValue(f"The voice {voice.name} speaks {', '.join(spoken)}, not {language[:64]!r}.", "language")
