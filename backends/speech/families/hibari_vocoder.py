"""The library's vocoder, with noise that is drawn once, and with the first samples of a piece before the others."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hibari import dsp

from backends.speech.families.acoustic_model import Samples

_SEED = 0
"""Seed of the noise in each piece: a piece sounds the same wherever it stands."""
_KEPT_NOISE = 1200 * dsp.N_FFT
"""Random numbers that are kept, for pieces of up to 15 s: 5.8 MB."""
_OVERLAP_FRAMES = dsp.N_FFT // dsp.HOP
"""Frames that the last samples of a part need beside their own."""


class Vocoder:
    """Turns the outputs of the network into samples: five spectra, float32[bins, frames], and the pitch of each frame.

    Every piece has noise of the same seed. Drawing it takes half of the time of the library's vocoder.
    """

    def __init__(self) -> None:
        self._kept_noise = _draw(_KEPT_NOISE)

    def __call__(self, spectra: Sequence[Samples], pitch: Samples) -> Samples:
        """Return float32[frames * 300]."""
        return self._speak(spectra, pitch, len(pitch))

    def first(self, spectra: Sequence[Samples], pitch: Samples, num_frames: int) -> Samples:
        """Return the samples of the first frames alone; empty if the piece is not much longer.

        They differ from the same samples of the whole by the rounding of float32 at most.
        """
        count = num_frames + _OVERLAP_FRAMES
        if count >= len(pitch):
            return np.empty(0, np.float32)
        first = [each[:, :count] for each in spectra]
        return self._speak(first, pitch[:count], len(pitch))[: num_frames * dsp.HOP]

    def _speak(self, spectra: Sequence[Samples], pitch: Samples, num_frames: int) -> Samples:
        samples: Samples = dsp.synth(*spectra, pitch, _Noise(self._kept_noise, num_frames))
        return samples


class _Noise:
    """Stands in for the random generator of the library, for some first frames of a piece of `num_frames`."""

    def __init__(self, kept: Samples, num_frames: int) -> None:
        self._kept = kept
        self._num_frames = num_frames

    def standard_normal(self, shape: tuple[int, int], dtype: npt.DTypeLike) -> Samples:
        """Return what a new generator draws, in an array that the library may change."""
        bins, width = shape
        count = 2 * self._num_frames * bins
        noise = self._kept[:count] if count <= len(self._kept) else _draw(count)
        return noise.reshape(bins, -1)[:, :width].astype(dtype)


def _draw(count: int) -> Samples:
    return np.random.default_rng(_SEED).standard_normal(count, dtype=np.float32)
