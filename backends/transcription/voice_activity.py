"""Voice activity: which parts of a recording are speech, by silero's network."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from backends.serving import scalar_values
from backends.serving.errors import InvalidValue
from backends.transcription.log_mel import Floats
from backends.transcription.options import SAMPLE_RATE

FRAME = 512
"""Samples for which the network gives one probability: 32 ms."""
_CONTEXT = 64
"""Samples before a frame that the network reads again."""
_BLOCK_FRAMES = 938
"""Frames of one call: 30 s."""
_MIN_SPEECH_FRAMES = 3
"""Shorter sounds, of less than about 0.1 s, are clicks."""
_HYSTERESIS = 0.15
"""Speech ends where the probability is so much below the threshold, as in silero's own code."""
_TRAILING_SECONDS = 0.4
"""Sound that is kept after the end of speech: final consonants are quiet."""
_CUT_SECONDS = 10.0
"""Speech without a pause is cut at the quietest moment of so many seconds before the limit."""

Span = tuple[int, int]
"""First sample and last sample + 1 of a part of a recording."""


@dataclass(frozen=True, slots=True)
class VoiceActivityParams:
    """The limits of speech: its least probability, the sound that is kept before it, and the silence that ends it."""

    threshold: float = 0.5
    prefix_padding_ms: float = 300
    silence_duration_ms: float = 500


def parse_voice_activity(document: bytes | None) -> VoiceActivityParams:
    """Parse the input `vad`, JSON with OpenAI's names of `server_vad`; None means the defaults.

    Raises `InvalidValue`, naming `vad`.
    """
    if not document:
        return VoiceActivityParams()
    try:
        values = json.loads(document)
    except ValueError:
        raise InvalidValue("This is not JSON.", "vad") from None
    limits = {"threshold": (0.0, 1.0), "prefix_padding_ms": (0, 5000), "silence_duration_ms": (0, 10_000)}
    if not isinstance(values, dict) or (unknown := [name for name in values if name not in limits]):
        known = ", ".join(limits)
        raise InvalidValue(f"This must be an object of {known}{f', not {unknown[0][:64]!r}' if values else ''}.", "vad")
    try:
        return VoiceActivityParams(
            **{name: scalar_values.parse_number(name, value, *limits[name]) for name, value in values.items()}
        )
    except InvalidValue as error:
        raise InvalidValue(f"{error.param}: {error.message}", "vad") from None


class SpeechDetector(Protocol):
    """Gives the probability of speech for each frame of a recording."""

    def probabilities(self, audio: Floats) -> Iterator[Floats]:
        """Yield float32[frames] block by block; the last frame is padded with silence."""


class SileroDetector:
    """Silero's network on onnxruntime. Several threads may use it at the same time."""

    def __init__(self, folder: Path) -> None:
        """Load `vad.onnx` of a version folder. Raises `FileNotFoundError`, or what onnxruntime raises."""
        import onnxruntime

        path = folder / "vad.onnx"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def probabilities(self, audio: Floats) -> Iterator[Floats]:
        """Yield the probabilities of 30 s at a time; the memory does not grow with the recording."""
        hidden, cell = np.zeros((2, 1, 1, 128), np.float32)
        before = np.zeros(_CONTEXT, np.float32)
        for start in range(0, len(audio), _BLOCK_FRAMES * FRAME):
            block = audio[start : start + _BLOCK_FRAMES * FRAME]
            num_frames = -(-len(block) // FRAME)
            padded = np.concatenate([before, block, np.zeros(num_frames * FRAME - len(block), np.float32)])
            frames = np.lib.stride_tricks.sliding_window_view(padded, _CONTEXT + FRAME)[::FRAME]
            found, hidden, cell = self._session.run(
                None, {"input": np.ascontiguousarray(frames), "h": hidden, "c": cell}
            )
            before = padded[-_CONTEXT:]
            yield found.reshape(-1)


@dataclass(frozen=True, slots=True)
class Speech:
    """A part with speech, padding included. `is_open` marks one that the end of the recording may have cut."""

    span: Span
    is_open: bool = False


def find_speech(
    detector: SpeechDetector, audio: Floats, params: VoiceActivityParams, max_seconds: float
) -> Iterator[Speech]:
    """Yield the parts of `audio` with speech, in order, each at most `max_seconds` long, as soon as they are known."""
    size = len(audio)
    prefix = int(params.prefix_padding_ms * SAMPLE_RATE / 1000)
    silence_frames = max(1, round(params.silence_duration_ms * SAMPLE_RATE / 1000 / FRAME))
    trailing = int(_TRAILING_SECONDS * SAMPLE_RATE)
    max_frames = int(max_seconds * SAMPLE_RATE - prefix - trailing) // FRAME - 1
    cut_frames = min(int(_CUT_SECONDS * SAMPLE_RATE / FRAME), max_frames // 2)
    low = max(params.threshold - _HYSTERESIS, 0.01)
    kept_until = 0  # the end of the last part that was yielded
    speech: list[float] | None = None  # the probabilities since the start of the current speech
    first = index = num_quiet = 0

    def part(start: int, end: int, before: int, after: int) -> Span:
        return max(start * FRAME - before, kept_until), min(end * FRAME + after, size)

    was_cut = False
    for block in detector.probabilities(audio):
        for probability in block.tolist():
            if speech is None:
                if probability >= params.threshold:
                    speech, first, num_quiet, was_cut = [probability], index, 0, False
            else:
                speech.append(probability)
                num_quiet = num_quiet + 1 if probability < low or (num_quiet and probability < params.threshold) else 0
                if num_quiet >= silence_frames:
                    if len(speech) - num_quiet >= _MIN_SPEECH_FRAMES:
                        span = part(first, index + 1 - num_quiet, 0 if was_cut else prefix, trailing)
                        kept_until = span[1]
                        yield Speech(span)
                    speech = None
                elif len(speech) >= max_frames:
                    cut = _quietest(speech, cut_frames)
                    span = part(first, first + cut, 0 if was_cut else prefix, 0)
                    kept_until = span[1]
                    yield Speech(span)
                    speech, first, was_cut = speech[cut:], first + cut, True
                    num_quiet = min(num_quiet, len(speech))
            index += 1
    if speech is not None and len(speech) - num_quiet >= _MIN_SPEECH_FRAMES:
        yield Speech(part(first, index - num_quiet, 0 if was_cut else prefix, trailing), is_open=True)


def _quietest(speech: list[float], cut_frames: int) -> int:
    """Return the index of the last of the quietest frames among the last `cut_frames`, by the mean of five."""
    tail: npt.NDArray[np.float64] = np.array(speech[-cut_frames:])
    smooth = np.convolve(np.pad(tail, 2, "edge"), np.full(5, 0.2), "valid").round(3)
    return len(speech) - 1 - int(smooth[::-1].argmin())
