"""Samples of responses that overlap: the end of each is blended with the beginning of the next."""

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ModelFailed

Wave = NDArray[np.float32]


class OverlappingAudio:
    """Joins waves of float32 samples, -1 to 1, and returns them as int16 samples, little-endian."""

    def __init__(self, overlap: int) -> None:
        """`overlap` is the number of samples that a response has in common with the one before it."""
        self._overlap = overlap
        self._held: Wave = np.zeros(0, np.float32)
        self.has_samples = False
        """True once a response had a sample."""

    def add(self, wave: bytes) -> bytes:
        """Return the samples that are complete with the next response, `wave`: little-endian float32 samples.

        Raises `ModelFailed` for a sample that is no number.
        """
        samples: Wave = np.frombuffer(wave, "<f4")
        if not samples.size:
            return b""
        if not np.isfinite(samples).all():
            raise ModelFailed("The model returned sound that is not a number.")
        self.has_samples = True
        if self._overlap:
            samples = self._blend(samples)
            self._held, samples = samples[-self._overlap :], samples[: -self._overlap]
        return _to_int16(samples)

    def rest(self) -> bytes:
        """Return the end of the last response, which nothing follows."""
        return _to_int16(self._held)

    def _blend(self, wave: Wave) -> Wave:
        """Fade the end of the last response into `wave`."""
        count = min(self._held.size, wave.size, self._overlap)
        if not count:
            return np.concatenate([self._held, wave])
        rising = np.linspace(0, 1, count, dtype=np.float32)
        faded = self._held[-count:] * (1 - rising) + wave[:count] * rising
        return np.concatenate([self._held[:-count], faded, wave[count:]])


def _to_int16(wave: Wave) -> bytes:
    return (np.clip(wave, -1, 1) * 32767).round().astype("<i2").tobytes()
