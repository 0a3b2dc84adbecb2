"""The transcription of one request: a job of several windows, each of which becomes a row of the decoder."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from backends.transcription.log_mel import Floats
from backends.transcription.windows import Window

FALLBACK_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""A window is decoded again at the next temperature until its text passes the thresholds below, which are
openai-whisper's."""
_MAX_COMPRESSION_RATIO = 2.4
_MIN_AVG_LOGPROB = -1.0
NO_SPEECH_THRESHOLD = 0.6


@dataclass(eq=False, slots=True)
class TranscriptionJob:
    """The windows and options of one request, and the callbacks for its results.

    `language` is None until it is detected. `prompt` are the tokens before every window. The scheduler's thread calls
    `on_window` once for each window, in any order, or `on_failed` once; both must return at once.
    """

    language: str | None
    task: str
    prompt: Sequence[int]
    temperatures: Sequence[float]
    words: bool
    on_window: Callable[["WindowResult"], None]
    on_failed: Callable[[Exception], None]
    random: np.random.Generator = field(default_factory=np.random.default_rng)
    arrival: int = field(default=-1, init=False)
    active: int = field(default=0, init=False)
    ended: bool = field(default=False, init=False)


@dataclass(eq=False, slots=True)
class WindowTask:
    """One window of a job, the number of which counts from 0, and its samples."""

    job: TranscriptionJob
    number: int
    window: Window
    samples: Floats


@dataclass(frozen=True, slots=True)
class Attempt:
    """The tokens that a window had at one temperature, without the end-of-text token, and how likely they are."""

    temperature: float
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    avg_logprob: float
    compression_ratio: float

    def needs_fallback(self, no_speech_prob: float) -> bool:
        """Return whether the window should be decoded again: the text repeats itself, or is unlikely."""
        if no_speech_prob > NO_SPEECH_THRESHOLD and self.avg_logprob < _MIN_AVG_LOGPROB:
            return False  # it is silence
        return self.compression_ratio > _MAX_COMPRESSION_RATIO or self.avg_logprob < _MIN_AVG_LOGPROB

    def is_silence(self, no_speech_prob: float) -> bool:
        """Return whether there is no speech in the window, so that the text is invented."""
        return no_speech_prob > NO_SPEECH_THRESHOLD and self.avg_logprob <= _MIN_AVG_LOGPROB


@dataclass(frozen=True, eq=False, slots=True)
class WindowResult:
    """The best attempt of a window.

    `attention` is float32[heads, tokens + 1, positions] of the alignment heads while each token is predicted, and then
    the end; None without word times. `num_generated` counts the tokens of all attempts.
    """

    number: int
    window: Window
    language: str
    attempt: Attempt
    no_speech_prob: float
    num_prompt_tokens: int
    num_generated: int
    attention: Floats | None = None

    @property
    def is_silence(self) -> bool:
        """True if there is no speech in the window."""
        return self.attempt.is_silence(self.no_speech_prob)


def best_attempt(attempts: Sequence[Attempt]) -> Attempt:
    """Return the last attempt if it passes; of attempts that all failed, the likeliest that does not repeat itself."""
    fluent = [attempt for attempt in attempts if attempt.compression_ratio <= _MAX_COMPRESSION_RATIO]
    if not attempts[-1].needs_fallback(0.0):
        return attempts[-1]
    return max(fluent or attempts, key=lambda attempt: attempt.avg_logprob)


def compression_ratio(text: str) -> float:
    """Return how many times shorter zlib makes a text: a text that repeats itself has a high ratio."""
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data))
