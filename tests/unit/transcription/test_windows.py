"""Voice activity and windows, on probabilities that the tests choose."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from backends.serving.errors import InvalidValue
from backends.transcription.log_mel import Floats
from backends.transcription.voice_activity import (
    FRAME,
    VoiceActivityParams,
    find_speech,
    parse_voice_activity,
)
from backends.transcription.windows import Window, WindowCutter

PER_SECOND = 16_000 / FRAME


class Probabilities:
    """Probabilities of speech by seconds: (length, probability) for each part, given in blocks."""

    def __init__(self, *parts: tuple[float, float], block: int = 100) -> None:
        self.frames = np.concatenate([np.full(round(seconds * PER_SECOND), value) for seconds, value in parts])
        self._block = block

    @property
    def audio(self) -> Floats:
        return np.arange(len(self.frames) * FRAME, dtype=np.float32)

    def probabilities(self, audio: Floats) -> Iterator[Floats]:
        for start in range(0, len(self.frames), self._block):
            yield self.frames[start : start + self._block].astype(np.float32)


def spans(detector: Probabilities, **params: float) -> list[tuple[float, float, bool]]:
    found = find_speech(detector, detector.audio, VoiceActivityParams(**params), 30)
    return [(speech.span[0] / 16_000, speech.span[1] / 16_000, speech.is_open) for speech in found]


def test_speech_has_padding_and_ends_after_silence() -> None:
    detector = Probabilities((2, 0.1), (3, 0.9), (0.3, 0.1), (1, 0.9), (2, 0.1), (1, 0.7), (0.1, 0.1))
    first, second = spans(detector)
    assert first[:2] == pytest.approx((1.7, 6.7), abs=0.05)
    assert second[:2] == pytest.approx((8.0, len(detector.frames) / PER_SECOND), abs=0.05)
    assert (first[2], second[2]) == (False, True)
    assert spans(detector, threshold=0.8) == [first]
    assert len(spans(detector, silence_duration_ms=200)) == 3
    assert spans(detector, prefix_padding_ms=0)[0][0] == pytest.approx(2, abs=0.05)


def test_the_blocks_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    parts = [(float(rng.uniform(0.05, 3)), float(rng.uniform(0, 1))) for _ in range(200)]
    assert spans(Probabilities(*parts, block=7)) == spans(Probabilities(*parts, block=10_000))


def test_parts_are_in_order_and_never_overlap() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        parts = [(float(rng.uniform(0.03, 2)), float(rng.choice([0.05, 0.4, 0.9]))) for _ in range(60)]
        found = spans(Probabilities(*parts), silence_duration_ms=float(rng.uniform(30, 900)))
        assert all(start < end <= start + 30 for start, end, _ in found)
        assert all(before[1] <= after[0] for before, after in pairwise(found))
        assert not any(is_open for _, _, is_open in found[:-1])


def test_a_click_and_a_dip_are_nothing() -> None:
    assert spans(Probabilities((1, 0.1), (0.065, 0.9), (2, 0.1))) == []
    # A dip that stays above the lower threshold does not begin a silence.
    assert len(spans(Probabilities((1, 0.9), (1, 0.4), (1, 0.9), (1, 0.1)))) == 1


def test_speech_without_a_pause_is_cut_at_its_quietest_moment() -> None:
    found = spans(Probabilities((22, 0.9), (0.3, 0.5), (20, 0.9), (1, 0.1)))
    (start, cut, _), (rest, end, _) = found
    assert (start, cut, end) == pytest.approx((0, 22.15, 42.7), abs=0.15)
    assert rest == cut
    found = spans(Probabilities((100, 0.9)))
    assert all(after[0] == before[1] for before, after in pairwise(found))
    assert found[0][0] == 0
    assert found[-1][1] == pytest.approx(100, abs=0.04)


def cut(detector: Probabilities, *, more: bool = False) -> tuple[list[Window], float]:
    cutter = WindowCutter(detector, detector.audio, VoiceActivityParams(), more=more)
    return list(cutter), cutter.consumed


def test_windows_hold_all_speech_without_the_silence() -> None:
    parts = [part for number in range(20) for part in ((2, 0.05), (3 + number % 4, 0.9))]
    detector = Probabilities(*parts, (2, 0.05))
    windows, consumed = cut(detector)
    speech = [speech.span for speech in find_speech(detector, detector.audio, VoiceActivityParams(), 30)]
    assert [span for window in windows for span in window.parts] == speech
    lengths = [window.seconds for window in windows]
    assert max(lengths) <= 30
    assert len(windows) == 4  # 104 s in as few windows as hold them
    assert min(lengths[-2:]) > 20, "the last windows are of similar length"
    assert consumed == len(detector.audio) / 16_000
    for window in windows:
        expected = np.concatenate([np.arange(start, end) for start, end in window.parts])
        assert np.array_equal(window.audio(detector.audio), expected)


def test_short_pauses_are_kept_where_there_is_room() -> None:
    (window,), _ = cut(Probabilities((4, 0.9), (1.5, 0.1), (4, 0.9), (3, 0.1), (4, 0.9), (1, 0.1)))
    assert [(start / 16_000, end / 16_000) for start, end in window.parts] == [
        pytest.approx((0, 9.9), abs=0.05),
        pytest.approx((12.2, 16.9), abs=0.05),
    ]
    full = Probabilities((14.2, 0.9), (1.5, 0.1), (14, 0.9), (1, 0.1))
    (window,), _ = cut(full)
    assert len(window.parts) == 2
    assert window.seconds <= 30


def test_times_in_a_window_are_times_in_the_recording() -> None:
    window = Window([(16_000, 32_000), (80_000, 112_000)])
    assert window.seconds == 3
    assert [window.time_in_recording(time) for time in (0, 0.5, 1, 2.5, 9)] == [1, 1.5, 5, 6.5, 7]
    assert [window.time_in_recording(time, is_end=True) for time in (0, 0.5, 1, 2.5, 9)] == [1, 1.5, 2, 6.5, 7]


def test_with_more_to_follow_open_speech_is_left() -> None:
    windows, consumed = cut(Probabilities((1, 0.05), (4, 0.9), (1, 0.05), (2, 0.9)), more=True)
    assert [window.seconds for window in windows] == [pytest.approx(4.7, abs=0.05)]
    assert consumed == pytest.approx(5.7, abs=0.05)
    # A pause that has not lasted long enough may be one within the speech.
    windows, consumed = cut(Probabilities((1, 0.05), (4, 0.9), (0.3, 0.05)), more=True)
    assert windows == []
    assert consumed == pytest.approx(0.7, abs=0.05)
    # Speech that is longer than a window makes progress all the same.
    windows, consumed = cut(Probabilities((100, 0.9)), more=True)
    assert consumed == pytest.approx(sum(window.seconds for window in windows))
    assert consumed > 60


def test_names_of_server_vad() -> None:
    assert parse_voice_activity(None) == parse_voice_activity(b"{}") == VoiceActivityParams()
    document = b'{"threshold": 0.3, "prefix_padding_ms": 100, "silence_duration_ms": "800"}'
    assert parse_voice_activity(document) == VoiceActivityParams(0.3, 100, 800)
    for wrong in (b"\xff", b"null", b'{"threshold": null}', b'{"prefix_padding_ms": -1}'):
        with pytest.raises(InvalidValue):
            parse_voice_activity(wrong)
