"""The tables of the benchmarks of sound, and their recordings."""

import io
import wave
from itertools import islice

import numpy as np
import pytest

from benchmarks import speech, transcription
from benchmarks.sound_recordings import RATE, Recording, passages, resample

SILENCE = np.zeros(2 * RATE, np.float32)


def test_the_ratio_is_to_the_better_configuration_of_the_peer() -> None:
    rates = {
        transcription.SHORT: {transcription.OURS: [20.0, 30.0, 22.0], transcription.PEER_ALL: [10.0, 10.0, 20.0]},
        transcription.EIGHT: {
            transcription.OURS: [30.0, 30.0, 30.0],
            transcription.PEER_ALL: [10.0, 10.0, 10.0],
            transcription.PEER_EACH: [15.0, 20.0, 25.0],
        },
    }
    table = transcription.speed_table(rates, ["noted"], {"faster-whisper": "1.2.1", "numpy": "2"})
    assert [(bar.value, bar.target, bar.met) for bar in table.thresholds] == [(2.0, 1.0, True), (1.5, 1.5, True)]
    assert table.rows[0] == (transcription.SHORT, transcription.OURS, 22.0, 2.0, [2.0, 3.0, 1.1])
    assert table.rows[2][3:] == (1.5, [2.0, 1.5, 1.2]) and table.rows[3][3:] == (None, None)
    assert table.versions == {"faster-whisper": "1.2.1"} and table.notes == ("noted",)


def test_without_the_peer_there_are_rates_and_no_ratio() -> None:
    table = transcription.speed_table({transcription.LONG: {transcription.OURS: [20.0]}}, ["why"], {})
    assert table.rows == [(transcription.LONG, transcription.OURS, 20.0, None, None)]
    assert table.thresholds == ()


def test_word_errors_are_compared_in_points_of_all_words() -> None:
    rows = [
        transcription.Row(Recording("a", SILENCE, ""), 300, 6, 3, 5, [0.02, -0.1, 0.1, 0.05]),
        transcription.Row(Recording("b", SILENCE, ""), 100, 0, 1, None, [0.12]),
    ]
    table = transcription.words_table(rows, [])
    errors, starts = table.thresholds
    assert errors.value == pytest.approx(0.5) and errors.met
    assert (starts.value, starts.met) == (80.0, False)
    assert table.rows[0][:6] == ("a", 2.0, 300, 6, 3, 5)
    assert table.rows[0][6:] == pytest.approx((75.0, 100.0))


def test_the_real_time_factor_is_compared_with_the_faster_loop() -> None:
    found = {1: {speech.OURS: [0.02, 0.03, 0.04], "one thread": [0.04, 0.04, 0.04], "two threads": [0.02, 0.03, 0.02]}}
    table = speech.rates_table(found)
    (bar,) = table.thresholds
    assert (bar.value, bar.target, bar.met) == (1.0, 1.1, True)
    assert table.rows[0] == (1, speech.OURS, 0.03, pytest.approx(1 / 0.03), 1.0, [1.0, 1.0, 2.0])


def test_systems_take_turns_and_the_first_round_does_not_count() -> None:
    called: list[str] = []

    def system(name: str) -> speech.Speak:
        def speak(sentences: list[str]) -> float:
            called.append(name)
            return float(len(sentences))

        return speak  # type: ignore[return-value]

    found = speech.measure_rates({"a": system("a"), "b": system("b")}, ["x", "y", "z"], rounds=2)
    assert "".join(called[::8]) == "ababbabaabab"
    assert {load: {name: len(values) for name, values in rates.items()} for load, rates in found.items()} == {
        1: {"a": 2, "b": 2},
        4: {"a": 2, "b": 2},
    }


def test_passages_are_whole_sentences_of_about_a_length() -> None:
    found = list(islice(passages(9), 6))
    assert len(set(found)) == 6
    assert all(135 <= len(text) <= 169 and text[0].isupper() and text[-1] in ".!?" for text in found)


def test_a_recording_keeps_its_samples_in_a_wav_file() -> None:
    samples = np.linspace(-1, 1, RATE, dtype=np.float32)
    with wave.open(io.BytesIO(Recording("ramp", samples, "").wav())) as reader:
        assert (reader.getframerate(), reader.getnchannels(), reader.getsampwidth()) == (RATE, 1, 2)
        stored = np.frombuffer(reader.readframes(RATE), "<i2").astype(np.float32) / 32767
    assert np.abs(stored - samples).max() < 1e-4


def test_resampling_keeps_a_tone() -> None:
    times = np.arange(48_000) / 24_000
    found = resample(np.sin(2 * np.pi * 440 * times).astype(np.float32), 24_000)
    assert len(found) == 2 * RATE
    middle = slice(1000, -1000)
    assert np.abs(found - np.sin(2 * np.pi * 440 * np.arange(len(found)) / RATE))[middle].max() < 0.01
