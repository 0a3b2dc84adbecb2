import numpy as np
import pytest

from backends.transcription.log_mel import LogMel


@pytest.mark.parametrize("num_mels", [80, 128])
def test_spectrograms_are_those_of_transformers(num_mels: int) -> None:
    """Quiet and loud sound, up to the last sample of 30 s."""
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=num_mels)
    log_mel = LogMel(extractor.mel_filters.T.astype(np.float32))
    rng = np.random.default_rng(3)
    for seconds in (0.001, 0.1, 7.3, 29.99, 30):
        times = np.arange(round(seconds * 16_000)) / 16_000
        chirp = np.sin(2 * np.pi * (200 + 150 * times) * times) * np.exp(-((times - seconds / 2) ** 2))
        audio = (0.4 * chirp + rng.normal(0, 1e-4, len(times))).astype(np.float32)
        expected = extractor(audio, sampling_rate=16_000, return_tensors="np").input_features[0]
        assert np.abs(log_mel(audio, 3000) - expected).max() < 1e-4


def test_a_short_spectrogram_is_the_start_of_a_long_one() -> None:
    log_mel = LogMel(np.abs(np.random.default_rng(0).normal(size=(4, 201))).astype(np.float32))
    audio = np.random.default_rng(1).normal(0, 0.1, 16_000).astype(np.float32)
    assert np.array_equal(log_mel(audio, 200), log_mel(audio, 3000)[:, :200])


def test_silence_and_no_sound_are_finite() -> None:
    log_mel = LogMel(np.ones((4, 201), np.float32))
    silence = log_mel(np.zeros(1600, np.float32), 100)
    assert np.allclose(silence, -1.5)  # the floor of 1e-10
    assert np.allclose(silence, log_mel(np.zeros(0, np.float32), 100))
