"""Files of weights of upscaling networks: safetensors, PyTorch, ncnn and ONNX."""

from pathlib import Path
from typing import Any

from builders.errors import SourceUnavailable, UnsupportedModel
from builders.upscaling import ncnn

SUFFIXES = (".safetensors", ".pth", ".pt", ".param", ".onnx")
"""Kinds of files, the preferred ones first. `.param` is ncnn's, beside which a `.bin` of the same name lies."""
_NESTED = ("params_ema", "params", "state_dict")
"""Keys under which training programs store the weights; the average over the training comes first."""


def find(folder: Path) -> Path:
    """Return the one file of weights of a folder. Raises SourceUnavailable if there is none, or several."""
    for suffix in SUFFIXES:
        found = sorted(folder.glob(f"*{suffix}"))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found)
            raise SourceUnavailable(f"{folder} has several files of weights: {names}. Name one of them.")
    raise SourceUnavailable(f"{folder} has no file of weights: {', '.join(SUFFIXES)}.")


def read(path: Path) -> dict[str, Any]:
    """Return the tensors of a checkpoint by name. Raises SourceUnavailable, UnsupportedModel."""
    import torch

    if path.suffix == ".param":
        return {name: torch.from_numpy(value) for name, value in ncnn.read(path, path.with_suffix(".bin")).items()}
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)  # runs no code of the file
    except Exception as error:  # the readers raise any exception for a broken file
        raise SourceUnavailable(f"{path.name} cannot be read: {' '.join(str(error).split())[:300]}") from None
    for name in _NESTED:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
            break
    if not isinstance(found, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
        raise UnsupportedModel(f"{path.name} does not hold the weights of one network by name.")
    return found
