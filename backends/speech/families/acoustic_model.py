"""The interface of an acoustic model, and what all of them share."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sound:
    """The speech of one piece, float32[samples] from -1 to 1, with the numbers of tokens and frames."""

    samples: Samples
    num_tokens: int
    """Phonemes that the model read."""
    num_frames: int
    """Acoustic frames that it computed."""


class AcousticModel(Protocol):
    """Speaks phonemes. Several threads may call it at the same time."""

    sample_rate: int
    """Samples a second."""
    speeds: tuple[float, float]
    """Smallest and largest speed that the model itself can speak at."""
    max_phonemes: int
    """Most characters of phonemes that one run takes."""
    first_phonemes: int
    """A first sentence with more characters of phonemes is spoken clause by clause, so that a client hears it soon."""
    mixes_accents: bool
    """True if each voice can speak every language of the model."""

    def synthesize(self, phonemes: str, voice: str, speed: float) -> Sound:
        """Speak phonemes with a voice, at a speed within `speeds`. The same arguments give the same samples."""

    def synthesize_parts(self, phonemes: str, voice: str, speed: float) -> Iterator[Sound]:
        """Speak the same in parts, the first of them as soon as it is known. Parts joined are the whole sound."""


class ModelFolder:
    """The version folder of a model, which a builder wrote."""

    FILE: ClassVar = "model.json"

    def __init__(self, folder: Path) -> None:
        """Read `model.json`. Raises `FileNotFoundError` or `ValueError` with a sentence."""
        self._folder = folder
        path = folder / self.FILE
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing.")
        try:
            self._values: dict[str, Any] = json.loads(path.read_bytes())
            self.family = str(self._values["family"])
            self.sample_rate = int(self._values["sample_rate"])
            self.vocabulary: dict[str, int] = self._values["vocabulary"]
            self.voice_files: dict[str, str] = self._values["voices"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} cannot be read: {error!r}.") from error

    def file(self, name: str) -> Path:
        """Return the path of a file that the model needs. Raises `FileNotFoundError`."""
        path = self._folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing.")
        return path

    def token_ids(self, phonemes: str) -> list[int]:
        """Return the ids of the phonemes that the model knows, between two zeros."""
        known = self.vocabulary
        return [0, *(known[phoneme] for phoneme in phonemes if phoneme in known), 0]


def open_session(path: Path) -> Any:
    """Open an ONNX file for runs that each compute with the thread that calls.

    Sentences run side by side instead, which speaks more of them than one run on all cores.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Every run has other lengths: a plan of the memory for each would only fill the memory.
    options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
