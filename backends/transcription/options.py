"""The `parameters` of `config.pbtxt` that this backend reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.serving.config_parameters import integer_value, json_value, string_values, thread_count

ENGINES = ("onnxruntime",)
TASKS = ("transcribe", "translate")
SAMPLE_RATE = 16_000
"""Samples per second of every input. It is fixed by Whisper."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a model, as docs/architecture.md describes them.

    `languages` restricts the languages of the checkpoint; None allows all of them. `max_seconds` bounds one recording,
    `max_rows` the windows that are decoded together, `max_waiting` the unanswered requests, and `max_waiting_seconds`
    their sound.
    """

    languages: tuple[str, ...] | None = None
    tasks: tuple[str, ...] = TASKS
    max_seconds: int = 600
    max_rows: int = 16
    max_waiting: int = 256
    max_waiting_seconds: int = 7200
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
    engine = values.get("engine") or ENGINES[0]
    if engine not in ENGINES:
        raise ValueError(f"The parameter engine is {engine!r}; this backend has {', '.join(ENGINES)}.")
    sample_rate = integer_value(values, "sample_rate", SAMPLE_RATE)
    if sample_rate != SAMPLE_RATE:
        raise ValueError(f"The parameter sample_rate is {sample_rate}; Whisper reads {SAMPLE_RATE} samples a second.")
    tasks = _names(values, "tasks") or TASKS
    if unknown := [task for task in tasks if task not in TASKS]:
        raise ValueError(f"The parameter tasks holds {unknown[0]!r}; the tasks are {' and '.join(TASKS)}.")
    return Options(
        languages=_names(values, "languages"),
        tasks=tasks,
        max_seconds=integer_value(values, "max_seconds", 600),
        max_rows=integer_value(values, "max_rows", 16),
        max_waiting=integer_value(values, "max_waiting", 256, 0),
        max_waiting_seconds=integer_value(values, "max_waiting_seconds", 7200, 0),
        threads=integer_value(values, "threads", 0, 0),
    )


def _names(values: Mapping[str, str], name: str) -> tuple[str, ...] | None:
    found = json_value(values, name, None)
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise ValueError(f"The parameter {name} is {found!r}; it must be a list of names.")
    return tuple(found)
