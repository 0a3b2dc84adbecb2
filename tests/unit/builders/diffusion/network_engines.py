"""The networks of a pipeline on PyTorch in the place of exported engines, so that all kinds are tested in seconds."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from builders.diffusion import pipeline_json
from builders.diffusion.parts import PipelinePart, network_arguments
from builders.diffusion.reference_pipeline import Engines


class NetworkEngines(Engines):
    """Runs networks that `load` returns. The pipeline model is named `tiny`."""

    def __init__(self, parts: Iterable[PipelinePart], load: Callable[[PipelinePart], Any], folder: Path) -> None:
        super().__init__(folder, lambda name: Path(name))
        self._parts = {pipeline_json.part_model_name("tiny", part.name): part for part in parts}
        self._networks = {name: load(part) for name, part in self._parts.items()}

    def run(self, name: str, **inputs: Any) -> list[Any]:
        """Run a network, whose inputs must be those of its part."""
        part = self._parts[name]
        assert set(inputs) == {port.name for port in part.inputs}
        types = {port.name: np.int64 if port.type == "INT64" else np.float32 for port in part.inputs}
        with torch.inference_mode():
            tensors = {key: torch.from_numpy(np.array(value, types[key])) for key, value in inputs.items()}
            outputs = self._networks[name](**network_arguments(tensors))
        return [tensor.numpy() for tensor in (outputs if isinstance(outputs, tuple) else (outputs,))]
