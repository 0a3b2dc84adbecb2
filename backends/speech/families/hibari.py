"""The family `hibari`: a network for each voice, which predicts spectra, and the library's vocoder."""

import numpy as np
from hibari import dsp

from backends.speech.families.acoustic_model import ModelFolder, Sound, open_session

_SEED = 0
"""Seed of the noise in each piece: a piece sounds the same wherever it stands."""


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
        self._sessions = {voice: open_session(folder.file(name)) for voice, name in folder.voice_files.items()}

    def synthesize(self, phonemes: str, voice: str, speed: float) -> Sound:
        """Speak phonemes; see `AcousticModel.synthesize`."""
        ids = self._folder.token_ids(phonemes)
        inputs = {"ids": np.array([ids], np.int64), "speed": np.array([speed], np.float32)}
        *spectra, pitch = (output[0] for output in self._sessions[voice].run(None, inputs))
        samples = dsp.synth(*spectra, pitch, np.random.default_rng(_SEED))
        return Sound(samples, len(ids) - 2, len(pitch))
