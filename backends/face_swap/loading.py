"""Loading of the networks from their version folder, on the device of the instance group."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.face_swap.detection import FaceDetector
from backends.face_swap.faces import FaceFinder
from backends.face_swap.landmarks import LandmarkFinder
from backends.face_swap.networks import FINDERS, SWAPPERS, OrtNetwork
from backends.face_swap.neural_swapper import EMBEDDING_SIDE, EMBEDDING_SIZE, SWAPPER_SIDE, SwapperNetworks
from backends.face_swap.swapping import FaceSwapper
from backends.serving.execution_providers import Provider, choose_providers

_SWAPPER_INPUTS = {"target": (3, SWAPPER_SIDE, SWAPPER_SIDE), "source": (EMBEDDING_SIZE,)}
"""Shapes of the inputs of a swapper without the batch, by name."""


def load_swapper(folder: Path, config: Mapping[str, Any], kind: str, device: str) -> FaceSwapper:
    """Return the networks of a version folder. `kind` (`CPU` or `GPU`) and `device` are those of the instance.

    Raises `FileNotFoundError`, `ValueError` with a sentence for people, or what onnxruntime raises.
    """
    import onnxruntime

    if kind == "GPU":
        onnxruntime.preload_dlls()  # from NVIDIA's packages, where CUDA and cuDNN are not installed in the system
    providers = choose_providers(config, kind, device, onnxruntime.get_available_providers())
    networks = {name: OrtNetwork(folder / f"{name}.onnx", providers) for name in FINDERS}
    finder = FaceFinder(FaceDetector(networks), LandmarkFinder(networks["landmarks"]))
    return FaceSwapper(finder, _load_neural(folder, providers))


def _load_neural(folder: Path, providers: Sequence[Provider]) -> SwapperNetworks | None:
    """Return the networks of a neural swapper; None if the folder has none."""
    if not any((folder / f"{name}.onnx").exists() for name in SWAPPERS):
        return None
    embedding, swapper = (OrtNetwork(folder / f"{name}.onnx", providers) for name in SWAPPERS)
    if [_sizes(shape) for shape in embedding.inputs.values()] != [(3, EMBEDDING_SIDE, EMBEDDING_SIDE)]:
        raise ValueError(f"embedding.onnx takes {dict(embedding.inputs)}, not a picture of 3 x 112 x 112.")
    if {name: _sizes(shape) for name, shape in swapper.inputs.items()} != _SWAPPER_INPUTS:
        raise ValueError(f"swapper.onnx takes {dict(swapper.inputs)}, not target 3 x 128 x 128 and source 512.")
    return SwapperNetworks(embedding, swapper.by_name("target", "source"), _load_emap(folder / "emap.npy"))


def _load_emap(path: Path) -> Any:
    if not path.exists():
        return None
    emap = np.load(path, allow_pickle=False)
    if emap.shape != (EMBEDDING_SIZE, EMBEDDING_SIZE):
        raise ValueError(f"{path.name} has the shape {emap.shape}, not {EMBEDDING_SIZE} x {EMBEDDING_SIZE}.")
    return emap.astype(np.float32)


def _sizes(shape: Sequence[Any]) -> tuple[Any, ...]:
    """Return the shape without the batch."""
    return tuple(shape[1:])
