"""A request for a transcription: its tensors, and the checks that need no network."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.serving.errors import InvalidValue, UnsupportedOption
from backends.transcription.job import FALLBACK_TEMPERATURES
from backends.transcription.log_mel import Floats
from backends.transcription.options import SAMPLE_RATE, TASKS, Options

TIMESTAMPS = ("none", "segment", "word")
_MAX_AMPLITUDE = 100.0
"""Samples lie within -1 and 1, and peaks of lossy formats a little above; 16-bit integers lie far beyond this."""


@dataclass(frozen=True, slots=True)
class Request:
    """The tensors of one request, unchecked; None if not sent."""

    audio: npt.NDArray[Any] | None
    language: str | None = None
    task: str | None = None
    prompt: str | None = None
    temperature: float | None = None
    timestamps: str | None = None
    more: bool = False
    vad: bytes | None = None
    return_logprobs: bool = False

    @property
    def num_samples(self) -> int:
        """The number of samples of the recording."""
        return 0 if self.audio is None else int(self.audio.size)


def check_audio(request: Request, options: Options) -> Floats:
    """Return the recording, float32[samples]. Raises `InvalidValue`, naming `audio`."""
    if request.audio is None:
        raise InvalidValue("There must be a recording.", "audio")
    audio = np.ascontiguousarray(request.audio.reshape(-1), np.float32)
    if len(audio) > options.max_seconds * SAMPLE_RATE:
        raise InvalidValue(
            f"The recording has {len(audio) / SAMPLE_RATE:.1f} seconds; at most {options.max_seconds} are accepted.",
            "audio",
        )
    if not len(audio):
        return audio
    peak = float(max(audio.max(), -audio.min()))
    if not np.isfinite(peak):
        raise InvalidValue("The samples must be finite numbers.", "audio")
    if peak > _MAX_AMPLITUDE:
        raise InvalidValue(f"The samples must lie between -1 and 1; one of them is {peak:g}.", "audio")
    return audio


def check_task(request: Request, options: Options, *, is_multilingual: bool) -> str:
    """Return the task. Raises `InvalidValue` or `UnsupportedOption`, naming `task`."""
    task = request.task or "transcribe"
    if task not in TASKS:
        raise InvalidValue(f"This must be {' or '.join(TASKS)}, not {task[:64]!r}.", "task")
    if task == "translate" and not is_multilingual:
        raise UnsupportedOption("This model knows English alone, so it cannot translate into it.", "task")
    if task not in options.tasks:
        raise UnsupportedOption(f"This model has no task {task!r}; it has {', '.join(options.tasks)}.", "task")
    return task


def check_timestamps(request: Request) -> str:
    """Return which times are wanted. Raises `InvalidValue`, naming `timestamps`."""
    timestamps = request.timestamps or TIMESTAMPS[0]
    if timestamps not in TIMESTAMPS:
        raise InvalidValue(f"This must be none, segment or word, not {timestamps[:64]!r}.", "timestamps")
    return timestamps


def check_temperatures(request: Request) -> tuple[float, ...]:
    """Return the temperatures to try, one after the other. Raises `InvalidValue`, naming `temperature`."""
    temperature = request.temperature
    if temperature is None:
        return FALLBACK_TEMPERATURES
    if not 0 <= temperature <= 2:  # NaN is refused too
        raise InvalidValue(f"This must be from 0 to 2, not {temperature:g}.", "temperature")
    return (temperature,)
