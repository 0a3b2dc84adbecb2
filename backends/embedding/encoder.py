"""The network: token ids in, vectors out. onnxruntime runs it here, or another model of the same Triton holds it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from backends.serving.execution_providers import CPU, Provider, check_providers

TokenIds = npt.NDArray[np.int64]
Embeddings = npt.NDArray[np.float32]
Arrays = Mapping[str, npt.NDArray[np.generic]]

_OUTPUT = "sentence_embedding"


class Encoder(Protocol):
    """Embeds a batch of texts. Several threads may call it at the same time."""

    def embed(self, texts: Sequence[TokenIds]) -> Embeddings:
        """Return float32[texts, dimensions] for token ids, int64[tokens] with at least one token for each text."""


class Components(Protocol):
    """Calls other models of the same Triton by name, see `backends.serving.bls.TritonComponents`."""

    def run(self, name: str, inputs: Arrays, outputs: Sequence[str]) -> Mapping[str, npt.NDArray[np.generic]]:
        """Return the named outputs. The first dimension of every input and output is the batch."""


class OrtEncoder:
    """The ONNX network that the builder family `embedding` writes.

    On a CPU, each call computes with one thread. On two cores, two calls at a time embed more texts than one call on
    both cores: a network this small spends too much of its time on splitting each matrix among threads and on waiting
    for them.
    """

    def __init__(self, folder: Path, providers: Sequence[Provider] = ((CPU, {}),)) -> None:
        """Load `model.onnx` of a version folder.

        Raises `FileNotFoundError`, `ValueError` if the file does not state its vocabulary size or a provider cannot be
        loaded, or what onnxruntime raises.
        """
        import onnxruntime

        path = folder / "model.onnx"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
        check_providers(providers, self._session.get_providers())
        try:
            self.vocab_size = int(self._session.get_modelmeta().custom_metadata_map["vocab_size"])
        except (KeyError, ValueError):
            raise ValueError(f"{path} does not state the size of its vocabulary.") from None

    def embed(self, texts: Sequence[TokenIds]) -> Embeddings:
        """Pad the texts on the right to the longest and run the network; see `Encoder.embed`."""
        embeddings: Embeddings
        (embeddings,) = self._session.run([_OUTPUT], _pad(texts))
        return embeddings


class ComponentEncoder:
    """The network as a Triton model of its own, such as a TensorRT plan."""

    def __init__(self, components: Components, name: str, vocab_size: int) -> None:
        """Call the model `name`. It may be loaded later: the first call is the first to need it."""
        self._components = components
        self._name = name
        self.vocab_size = vocab_size

    def embed(self, texts: Sequence[TokenIds]) -> Embeddings:
        """Pad the texts on the right to the longest and call the model; see `Encoder.embed`. Raises `EngineFailed`."""
        return self._components.run(self._name, _pad(texts), [_OUTPUT])[_OUTPUT].astype(np.float32, copy=False)


def _pad(texts: Sequence[TokenIds]) -> dict[str, npt.NDArray[np.generic]]:
    """Return the inputs of the network."""
    lengths = np.array([len(text) for text in texts], np.int32)
    ids = np.zeros((len(texts), int(lengths.max())), np.int64)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text
    return {"input_ids": ids, "lengths": lengths}
