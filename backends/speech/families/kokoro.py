"""The family `kokoro`: Kokoro-82M, one network for all voices, and a table of styles for each voice."""

from collections.abc import Iterator

import numpy as np

from backends.speech.families.acoustic_model import ModelFolder, Samples, Sound, open_session

_STYLES = 510
_SAMPLES_PER_FRAME = 600
"""Kokoro predicts durations in frames of 25 ms."""


class KokoroModel:
    """The network and the styles of the voices."""

    speeds = (0.5, 2.0)
    max_phonemes = 200
    first_phonemes = 40
    mixes_accents = True

    def __init__(self, folder: ModelFolder) -> None:
        """Open the network and the voices. Raises `FileNotFoundError`, `ValueError`, or what onnxruntime raises."""
        self._folder = folder
        self.sample_rate = folder.sample_rate
        self._session = open_session(folder.file("model.onnx"))
        names = {each.name for each in self._session.get_inputs()}
        self._ids_name = next((name for name in ("input_ids", "tokens") if name in names), "")
        if names != {self._ids_name, "style", "speed"}:
            raise ValueError(f"The network takes {', '.join(sorted(names))}, not tokens, style and speed.")
        self._styles = {voice: _read_styles(folder, name) for voice, name in folder.voice_files.items()}

    def synthesize(self, phonemes: str, voice: str, speed: float) -> Sound:
        """Speak phonemes; see `AcousticModel.synthesize`."""
        ids = self._folder.token_ids(phonemes)
        count = len(ids) - 2
        inputs = {
            self._ids_name: np.array([ids], np.int64),
            "style": self._styles[voice][count - 1][None],
            "speed": np.array([speed], np.float32),
        }
        samples = self._session.run(None, inputs)[0].reshape(-1)
        return Sound(samples, count, len(samples) // _SAMPLES_PER_FRAME)

    def synthesize_parts(self, phonemes: str, voice: str, speed: float) -> Iterator[Sound]:
        """Yield the whole sound: the network itself makes the samples; see `AcousticModel.synthesize_parts`."""
        yield self.synthesize(phonemes, voice, speed)


def _read_styles(folder: ModelFolder, name: str) -> Samples:
    """Return float32[510, 256]: a style for each number of phonemes."""
    path = folder.file(name)
    styles: Samples = np.fromfile(path, np.float32)
    if styles.size % _STYLES:
        raise ValueError(f"{path} does not hold {_STYLES} styles.")
    return styles.reshape(_STYLES, -1)
