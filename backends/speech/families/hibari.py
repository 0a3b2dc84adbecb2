"""The family `hibari`: a network for each voice, which predicts spectra, and the library's vocoder."""

from collections.abc import Iterator

import numpy as np

from backends.speech.families.acoustic_model import ModelFolder, Samples, Sound, open_session
from backends.speech.families.hibari_vocoder import Vocoder

_FIRST_FRAMES = 40
"""Frames of the first part of a piece: half a second."""


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
        self._vocoder = Vocoder()
        self._sessions = {voice: open_session(folder.file(name)) for voice, name in folder.voice_files.items()}

    def synthesize(self, phonemes: str, voice: str, speed: float) -> Sound:
        """Speak phonemes; see `AcousticModel.synthesize`."""
        num_tokens, spectra, pitch = self._run(phonemes, voice, speed)
        return Sound(self._vocoder(spectra, pitch), num_tokens, len(pitch))

    def synthesize_parts(self, phonemes: str, voice: str, speed: float) -> Iterator[Sound]:
        """Yield the first half second before the rest is computed; see `AcousticModel.synthesize_parts`."""
        num_tokens, spectra, pitch = self._run(phonemes, voice, speed)
        num_first = 0
        if len(first := self._vocoder.first(spectra, pitch, _FIRST_FRAMES)):
            yield Sound(first, num_tokens, _FIRST_FRAMES)
            num_tokens, num_first = 0, _FIRST_FRAMES
        yield Sound(self._vocoder(spectra, pitch)[len(first) :], num_tokens, len(pitch) - num_first)

    def _run(self, phonemes: str, voice: str, speed: float) -> tuple[int, list[Samples], Samples]:
        """Return the number of phonemes that the network knows, and its outputs without their batch."""
        ids = self._folder.token_ids(phonemes)
        inputs = {"ids": np.array([ids], np.int64), "speed": np.array([speed], np.float32)}
        *spectra, pitch = (output[0] for output in self._sessions[voice].run(None, inputs))
        return len(ids) - 2, spectra, pitch
