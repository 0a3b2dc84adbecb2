"""The family `hibari`: a network for each voice, which predicts spectra, and the library's vocoder."""

import numpy as np
import numpy.typing as npt
from hibari import dsp

from backends.speech.families.acoustic_model import ModelFolder, Sound, open_session

_SEED = 0
"""Seed of the noise in each piece: a piece sounds the same wherever it stands."""
_KEPT_NOISE = 1200 * dsp.N_FFT
"""Random numbers that are kept, for pieces of up to 15 s of sound: 5.8 MB."""


class Noise:
    """Stands in for a random generator with the seed `_SEED`, and draws the numbers that every piece needs once.

    Drawing them takes half of the time of the vocoder.
    """

    def __init__(self) -> None:
        self._kept = _draw(_KEPT_NOISE)

    def standard_normal(self, shape: tuple[int, int], dtype: type[np.float32]) -> npt.NDArray[np.float32]:
        """Return an array that the caller may change: what a new generator would draw first."""
        count = shape[0] * shape[1]
        if count > len(self._kept):
            return _draw(count).reshape(shape)
        return self._kept[:count].reshape(shape).copy()


def _draw(count: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(_SEED).standard_normal(count, dtype=np.float32)


class HibariModel:
    """The networks of all voices."""

    speeds = (0.5, 2.0)
    max_phonemes = 400
    first_phonemes = 150
    mixes_accents = False

    def __init__(self, folder: ModelFolder) -> None:
        """Open the network of each voice. Raises `FileNotFoundError`, or what onnxruntime raises."""
        self._folder = folder
        self.sample_rate = folder.sample_rate
        self._noise = Noise()
        self._sessions = {voice: open_session(folder.file(name)) for voice, name in folder.voice_files.items()}

    def synthesize(self, phonemes: str, voice: str, speed: float) -> Sound:
        """Speak phonemes; see `AcousticModel.synthesize`."""
        ids = self._folder.token_ids(phonemes)
        inputs = {"ids": np.array([ids], np.int64), "speed": np.array([speed], np.float32)}
        *spectra, pitch = (output[0] for output in self._sessions[voice].run(None, inputs))
        samples = dsp.synth(*spectra, pitch, self._noise)
        return Sound(samples, len(ids) - 2, len(pitch))
