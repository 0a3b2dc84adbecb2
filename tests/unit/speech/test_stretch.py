"""The tempo of a sound changes, and its pitch does not."""

import numpy as np
import pytest

from backends.speech.stretch import stretch

RATE = 24_000


def tone(seconds: float, hertz: float = 220.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def strongest(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * RATE / len(samples))


@pytest.mark.parametrize("tempo", [0.5, 0.8, 1.25, 2.0])
def test_the_length_changes_and_the_pitch_does_not(tempo: float) -> None:
    changed = stretch(tone(1.0), tempo, RATE)
    assert changed.dtype == np.float32
    assert len(changed) == round(RATE / tempo)
    assert abs(strongest(changed) - 220) < 3
    middle = changed[len(changed) // 4 : -len(changed) // 4]
    assert 0.45 < np.abs(middle).max() <= 0.5, "frames are added in phase"
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


def test_the_order_of_sounds_is_kept() -> None:
    high_then_low = np.concatenate([tone(0.5, 880), tone(0.5, 220)])
    changed = stretch(high_then_low, 2.0, RATE)
    first, last = changed[: len(changed) // 3], changed[-len(changed) // 3 :]
    assert abs(strongest(first) - 880) < 10 and abs(strongest(last) - 220) < 10


@pytest.mark.parametrize("length", [0, 1, 500, 960])
def test_what_is_too_short_stays_as_it_is(length: int) -> None:
    samples = tone(1.0)[:length]
    assert stretch(samples, 2.0, RATE) is samples
    assert stretch(tone(1.0), 1.0, RATE).shape == (RATE,)


def test_silence_stays_silent() -> None:
    assert not stretch(np.zeros(RATE, np.float32), 0.5, RATE).any()
