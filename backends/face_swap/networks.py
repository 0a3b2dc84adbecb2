"""The ONNX networks of a version folder, run by onnxruntime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from backends.serving.execution_providers import CPU, Provider, check_providers

Arrays = Sequence[npt.NDArray[np.float32]]

FINDERS = ("pnet", "rnet", "onet", "landmarks")
"""Networks that find faces and their points: `<name>.onnx`."""
SWAPPERS = ("embedding", "swapper")
"""Networks of a neural swapper, both or none of them."""


class Network(Protocol):
    """A network. Several threads may call it at the same time."""

    def __call__(self, *inputs: npt.NDArray[np.float32]) -> Arrays:
        """Return the outputs for inputs in the order of the file."""
        ...


class OrtNetwork:
    """An ONNX file. On a CPU, each call computes with one thread: requests run side by side."""

    def __init__(self, path: Path, providers: Sequence[Provider] = ((CPU, {}),)) -> None:
        """Raises `FileNotFoundError`, `ValueError` if a provider cannot be loaded, or what onnxruntime raises."""
        import onnxruntime

        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
        check_providers(providers, self._session.get_providers())
        self.inputs: Mapping[str, Sequence[Any]] = {each.name: each.shape for each in self._session.get_inputs()}
        self.outputs: Sequence[Sequence[Any]] = [each.shape for each in self._session.get_outputs()]

    def by_name(self, *names: str) -> "Network":
        """Return the network with its inputs in the order of `names`."""

        def call(*inputs: npt.NDArray[np.float32]) -> Arrays:
            by_name = dict(zip(names, inputs, strict=True))
            return self(*(by_name[name] for name in self.inputs))

        return call

    def __call__(self, *inputs: npt.NDArray[np.float32]) -> Arrays:
        """Run the network."""
        given = {name: np.ascontiguousarray(array) for name, array in zip(self.inputs, inputs, strict=True)}
        outputs: Arrays = self._session.run(None, given)
        return outputs
