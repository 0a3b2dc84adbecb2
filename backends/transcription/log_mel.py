"""The log-mel spectrogram that Whisper reads."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

HOP = 160
"""Samples between two frames."""
_FFT = 400
"""Samples of one frame."""
_FLOOR = 1e-10
_BLOCK_FRAMES = 1000
"""Frames that are transformed at a time: the spectra of 1,000 frames take 3 MB."""


class LogMel:
    """Computes spectrograms equal to those of transformers' `WhisperFeatureExtractor` within 1e-4."""

    def __init__(self, filters: Floats) -> None:
        """`filters` are the mel filters, float32[mels, 201]."""
        self._filters = np.ascontiguousarray(filters.T, np.float32)
        # In double precision, as transformers computes it: quiet bands lie eight decades below the loudest.
        self._window = np.hanning(_FFT + 1)[:-1]
        self.num_mels = int(filters.shape[0])

    def __call__(self, audio: Floats, num_frames: int) -> Floats:
        """Return float32[mels, num_frames] of `audio`, padded with silence to `num_frames` hops.

        `audio` holds at most `num_frames` * `HOP` samples.
        """
        total = num_frames * HOP
        padded = np.zeros(total + _FFT, np.float32)
        half = _FFT // 2
        padded[half : half + len(audio)] = audio
        padded[:half] = padded[_FFT:half:-1]
        padded[total + half :] = padded[total + half - 2 : total - 2 : -1]
        frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::HOP][:num_frames]
        # The frames behind the sound are all zeros, so their energies need not be computed.
        num_sounding = min(num_frames, (len(audio) + half) // HOP + 1)
        mel = np.full((num_frames, self.num_mels), np.log10(_FLOOR), np.float32)
        for start in range(0, num_sounding, _BLOCK_FRAMES):
            stop = min(start + _BLOCK_FRAMES, num_sounding)
            spectra = np.fft.rfft(frames[start:stop] * self._window)
            energies = (spectra.real**2 + spectra.imag**2).astype(np.float32)
            mel[start:stop] = np.log10(np.maximum(energies @ self._filters, _FLOOR))
        np.maximum(mel, mel.max() - 8.0, out=mel)
        return np.ascontiguousarray(((mel + 4.0) / 4.0).T)


def load_log_mel(folder: Path) -> LogMel:
    """Load `mel_filters.npy` of a version folder. Raises `FileNotFoundError`, or `ValueError` for another shape."""
    path = folder / "mel_filters.npy"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing.")
    filters = np.load(path, allow_pickle=False)
    if filters.ndim != 2 or filters.shape[1] != _FFT // 2 + 1:
        raise ValueError(f"{path} holds {filters.shape}; it must be [mels, {_FFT // 2 + 1}].")
    return LogMel(filters)
