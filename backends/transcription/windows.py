"""Windows: the speech of a recording packed into pieces that the network reads at once, without the silence."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

from backends.transcription.log_mel import Floats
from backends.transcription.options import SAMPLE_RATE
from backends.transcription.voice_activity import Span, SpeechDetector, VoiceActivityParams, find_speech

MAX_SECONDS = 30.0
"""The longest window: what Whisper was trained with."""
_LOOKBACK_SECONDS = 0.3
"""Silence before a cut that is sent again: speech may begin before it is detected."""

_MAX_PAUSE_SECONDS = 1.0
"""Silence between two parts that a window keeps where it has room: a pause helps with punctuation."""


class Window:
    """Parts of a recording, one after the other, and the times that they have in the recording."""

    def __init__(self, parts: Sequence[Span]) -> None:
        """`parts` are in order; each has at least one sample."""
        self.parts = tuple(parts)
        self._starts = [0.0]
        for start, end in parts:
            self._starts.append(self._starts[-1] + (end - start) / SAMPLE_RATE)

    @property
    def seconds(self) -> float:
        """The length of the window."""
        return self._starts[-1]

    def audio(self, recording: Floats) -> Floats:
        """Return the samples of the window."""
        if len(self.parts) == 1:
            return recording[slice(*self.parts[0])]
        return np.concatenate([recording[start:end] for start, end in self.parts])

    def time_in_recording(self, seconds: float, *, is_end: bool = False) -> float:
        """Return the time in the recording of a time in the window.

        The border of two parts is the start of the second, unless it `is_end`: then it is the end of the first.
        """
        seconds = min(max(seconds, 0.0), self.seconds)
        find = bisect_left if is_end else bisect_right
        number = min(max(find(self._starts, seconds) - 1, 0), len(self.parts) - 1)
        return self.parts[number][0] / SAMPLE_RATE + seconds - self._starts[number]


class WindowCutter:
    """Iterates over the windows of a recording; `consumed` says afterwards how far they reach."""

    def __init__(
        self, detector: SpeechDetector, recording: Floats, params: VoiceActivityParams, *, more: bool = False
    ) -> None:
        """With `more`, stop before speech that the end of the recording may have cut."""
        self._detector = detector
        self._recording = recording
        self._params = params
        self._more = more
        self.consumed = 0.0
        """Seconds of the recording that need not be sent again; known when the iteration has ended."""

    def __iter__(self) -> Iterator[Window]:
        """Yield the windows in order, each as soon as it is known."""
        limit = int(MAX_SECONDS * SAMPLE_RATE)
        size = len(self._recording)
        consumed = size
        if self._more:
            consumed -= max(
                int(self._params.prefix_padding_ms * SAMPLE_RATE / 1000), int(_LOOKBACK_SECONDS * SAMPLE_RATE)
            )
        waiting: list[Span] = []
        for speech in find_speech(self._detector, self._recording, self._params, MAX_SECONDS):
            if speech.is_open and self._more:
                consumed = speech.span[0]
                break
            consumed = max(consumed, speech.span[1])
            waiting.append(speech.span)
            # The last two windows are made when all speech is known, so that they are of one length.
            while _num_samples(waiting) > 3 * limit:
                parts = _pack(waiting, limit)[0]
                del waiting[: len(parts)]
                yield Window(_keep_pauses(parts, limit))
        self.consumed = min(max(consumed, 0), size) / SAMPLE_RATE
        for parts in _pack_evenly(waiting, limit):
            yield Window(_keep_pauses(parts, limit))


def _num_samples(parts: Sequence[Span]) -> int:
    return sum(end - start for start, end in parts)


def _pack(parts: Sequence[Span], limit: int) -> list[list[Span]]:
    """Return the parts in groups of at most `limit` samples, each as full as possible."""
    groups: list[list[Span]] = []
    size = 0
    for start, end in parts:
        if not groups or size + end - start > limit:
            groups.append([])
            size = 0
        groups[-1].append((start, end))
        size += end - start
    return groups


def _pack_evenly(parts: Sequence[Span], limit: int) -> list[list[Span]]:
    """Return as few groups as `_pack`, of similar length: the decoder steps through all of them together."""
    groups = _pack(parts, limit)
    if len(groups) < 2:
        return groups
    low, high = _num_samples(parts) // len(groups), limit
    while high - low > SAMPLE_RATE // 2:
        middle = (low + high) // 2
        if len(_pack(parts, middle)) > len(groups):
            low = middle
        else:
            high = middle
    return _pack(parts, high)


def _keep_pauses(parts: Sequence[Span], limit: int) -> list[Span]:
    """Join parts with a short pause between them as long as all of them have at most `limit` samples."""
    room = limit - _num_samples(parts)
    joined = [parts[0]]
    for start, end in parts[1:]:
        pause = start - joined[-1][1]
        if pause <= min(room, _MAX_PAUSE_SECONDS * SAMPLE_RATE):
            room -= pause
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
