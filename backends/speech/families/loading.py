"""The choice of the family that a model folder names."""

from pathlib import Path

from backends.speech.families.acoustic_model import AcousticModel, ModelFolder
from backends.speech.families.hibari import HibariModel
from backends.speech.families.kokoro import KokoroModel

FAMILIES: dict[str, type[HibariModel] | type[KokoroModel]] = {"hibari": HibariModel, "kokoro": KokoroModel}


def load_model(folder: Path) -> AcousticModel:
    """Load the model of a version folder. Raises `FileNotFoundError`, `ValueError`, or what onnxruntime raises."""
    files = ModelFolder(folder)
    if files.family not in FAMILIES:
        raise ValueError(f"{folder} has a model of the family {files.family!r}; known: {', '.join(FAMILIES)}.")
    return FAMILIES[files.family](files)
