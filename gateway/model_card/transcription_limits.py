"""The limits of a transcription model, by the parameters of its `config.pbtxt`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.operations.recording import SAMPLE_RATE

_TASKS = frozenset({"transcribe", "translate"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptionLimits:
    """The languages, tasks and lengths of a transcription model."""

    languages: tuple[str, ...] | None = None
    """Codes of the languages that it transcribes; None: unknown."""
    tasks: frozenset[str] | None = None
    """`transcribe`, `translate`; None: unknown."""
    max_seconds: float | None = None
    """Longest sound of one request to the model; None: unknown."""


def parse_transcription(parameters: Mapping[str, str]) -> TranscriptionLimits:
    """Parse the parameters of transcription. Raises `ValueError` for an invalid value."""
    languages = json.loads(parameters["languages"]) if "languages" in parameters else None
    tasks = json.loads(parameters["tasks"]) if "tasks" in parameters else None
    for name, value in (("languages", languages), ("tasks", tasks)):
        if value is not None and not (isinstance(value, list) and all(isinstance(word, str) for word in value)):
            raise ValueError(f"{name} is not a list of strings")
    if tasks is not None and not tasks:
        raise ValueError("tasks is empty")
    if int(parameters.get("sample_rate", SAMPLE_RATE)) != SAMPLE_RATE:
        raise ValueError(f"sample_rate is {parameters['sample_rate']}; the gateway sends {SAMPLE_RATE}")
    max_seconds = float(parameters["max_seconds"]) if "max_seconds" in parameters else None
    if max_seconds is not None and not 1 <= max_seconds <= 86_400:
        raise ValueError(f"max_seconds is {max_seconds:g}; expected 1 to 86400")
    return TranscriptionLimits(
        languages=None if languages is None else tuple(languages),
        tasks=None if tasks is None else _TASKS.intersection(tasks),
        max_seconds=max_seconds,
    )
