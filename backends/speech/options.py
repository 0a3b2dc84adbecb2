"""The `parameters` of `config.pbtxt` that this backend reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.serving.config_parameters import integer_value, json_value, string_values, thread_count
from backends.speech.text.phonemizers import LANGUAGES
from backends.speech.voices import Voice

PHONEMIZERS = ("hibari", "espeak")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a model, as docs/architecture.md describes them.

    `max_rows` requests take turns, `max_waiting` more wait for one of them to end.
    """

    voices: tuple[Voice, ...]
    default_voice: str
    phonemizer: str = "hibari"
    max_characters: int = 100_000
    max_rows: int = 16
    max_waiting: int = 256
    threads: int = 0

    @property
    def num_threads(self) -> int:
        """Threads that compute: `threads`, or one for each core that this process may use if that is 0."""
        return thread_count(self.threads)


def read_options(parameters: Mapping[str, Mapping[str, Any]]) -> Options:
    """Read `parameters` as Triton passes them: `{"max_rows": {"string_value": "16"}}`.

    Ignores parameters that others read. Raises `ValueError` with a sentence that names the parameter.
    """
    values = string_values(parameters)
    voices = _voices(json_value(values, "voices", None))
    default = values.get("default_voice") or voices[0].id
    if default not in {voice.id for voice in voices}:
        raise ValueError(f"The parameter default_voice is {default!r}, which is none of the voices.")
    phonemizer = values.get("phonemizer") or PHONEMIZERS[0]
    if phonemizer not in PHONEMIZERS:
        raise ValueError(f"The parameter phonemizer is {phonemizer!r}; this backend has {', '.join(PHONEMIZERS)}.")
    return Options(
        voices=voices,
        default_voice=default,
        phonemizer=phonemizer,
        max_characters=integer_value(values, "max_characters", 100_000, 1),
        max_rows=integer_value(values, "max_rows", 16, 1),
        max_waiting=integer_value(values, "max_waiting", 256, 0),
        threads=integer_value(values, "threads", 0, 0),
    )


def _voices(value: Any) -> tuple[Voice, ...]:
    try:
        voices = tuple(Voice(str(each["id"]), str(each["name"]), str(each["language"])) for each in value)
    except (TypeError, KeyError):
        voices = ()
    if not voices or any(voice.language not in LANGUAGES for voice in voices):
        raise ValueError(
            f"The parameter voices is {value!r}; it must be a list of objects with id, name and language, which is one "
            f"of {', '.join(LANGUAGES)}."
        )
    return voices
