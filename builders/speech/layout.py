"""The layouts in which models that speak are published: which files are the networks and the voices."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from builders.checkpoint import read_json
from builders.errors import SourceUnavailable, UnsupportedModel

SpeechFamily = Literal["hibari", "kokoro"]

AMERICAN, BRITISH = "en-US", "en-GB"
_KOKORO_LANGUAGES = {"a": AMERICAN, "b": BRITISH}
_GENDERS = {"f": "female", "m": "male"}
KOKORO_NETWORKS = {"fp32": ("model.onnx",), "int8": ("model_quantized.onnx", "model_q8.onnx", "kokoro_int8.onnx")}
"""Names of the network by precision, in the root or in `onnx/`."""
SAMPLE_RATE = 24_000


@dataclass(frozen=True, slots=True)
class VoiceFile:
    """A voice and its file: a network (hibari), or a table of styles (Kokoro)."""

    id: str
    file: str
    """Path in the source's folder."""
    language: str
    gender: str

    @property
    def name(self) -> str:
        """The name for people: `Heart` for `heart` and for `af_heart`."""
        return self.id.rpartition("_")[2].title()


@dataclass(frozen=True, slots=True)
class SpeechLayout:
    """The files of a source."""

    family: SpeechFamily
    voices: tuple[VoiceFile, ...]
    networks: dict[str, str]
    """Kokoro: path of the network by precision."""
    vocabulary_file: str | None

    def files(self, precision: str) -> list[str]:
        """Return the paths that a build of this precision reads."""
        network = self.networks.get(precision) or next(iter(self.networks.values()), None)
        return [*filter(None, (network, self.vocabulary_file)), *(voice.file for voice in self.voices)]


def read_layout(names: Iterable[str], source: str) -> SpeechLayout:
    """Find the networks and voices among the paths of a folder. Raises UnsupportedModel, which says what is missing."""
    paths = sorted(names)
    networks = {
        precision: path
        for precision, known in KOKORO_NETWORKS.items()
        for path in paths
        if PurePosixPath(path).name in known and PurePosixPath(path).parent.name in ("", "onnx")
    }
    styles = tuple(filter(None, map(_kokoro_voice, paths)))
    if networks and styles:
        vocabulary = next((path for path in ("tokenizer.json", "vocab.json") if path in paths), None)
        return SpeechLayout("kokoro", styles, networks, vocabulary)
    if voices := tuple(_hibari_voices(paths)):
        return SpeechLayout("hibari", voices, {}, None)
    weights = " PyTorch's weights are not read: onnx-community/Kokoro-82M-v1.0-ONNX has Kokoro as ONNX."
    raise UnsupportedModel(
        f"{source} holds no model that speaks: neither a network of Kokoro (onnx/model.onnx or "
        "onnx/model_quantized.onnx) with voices/*.bin, nor a voice of hibari (hibari.onnx, voices/bf_emma.int8.onnx)."
        + (weights if any(path.endswith((".pth", ".pt", ".safetensors")) for path in paths) else "")
    )


def read_vocabulary(folder: Path, layout: SpeechLayout) -> dict[str, int]:
    """Return the id of each phoneme: of the source's file, or of Kokoro, which the library hibari knows."""
    if layout.vocabulary_file is None:
        import hibari

        return dict(json.loads((Path(hibari.__file__).parent / "assets" / "vocab.json").read_bytes()))
    document = read_json(folder / layout.vocabulary_file, needed=True)
    vocabulary = document.get("model", document).get("vocab", document)
    known = {symbol: id for symbol, id in vocabulary.items() if isinstance(id, int) and len(symbol) == 1 and id}
    if not known:
        raise SourceUnavailable(f"{layout.vocabulary_file} names no phonemes.")
    return known


def _kokoro_voice(path: str) -> VoiceFile | None:
    """Return the voice of a file like `voices/af_heart.bin`; None for other files and for languages besides English."""
    found = PurePosixPath(path)
    if found.parent.name != "voices" or found.suffix != ".bin" or found.stem[2:3] != "_":
        return None
    language, gender = _KOKORO_LANGUAGES.get(found.stem[0]), _GENDERS.get(found.stem[1])
    return VoiceFile(found.stem, path, language, gender) if language and gender else None


def _hibari_voices(paths: Iterable[str]) -> Iterable[VoiceFile]:
    from hibari.voices import VOICES

    by_name = {PurePosixPath(path).name: path for path in paths}
    for id, known in VOICES.items():
        if known["file"] in by_name:
            yield VoiceFile(id, by_name[known["file"]], known["language"], known["gender"])
