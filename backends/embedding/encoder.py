"""The network on onnxruntime: token ids in, vectors out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

TokenIds = npt.NDArray[np.int64]
Embeddings = npt.NDArray[np.float32]


class Encoder(Protocol):
    """Embeds a batch of texts. Several threads may call it at the same time."""

    def embed(self, texts: Sequence[TokenIds]) -> Embeddings:
        """Return float32[texts, dimensions] for token ids, int64[tokens] with at least one token for each text."""


class OrtEncoder:
    """The ONNX network that the builder family `embedding` writes.

    Each call computes with one thread. On two cores, two calls at a time embed more texts than one call on both cores:
    a network this small spends too much of its time on splitting each matrix among threads and on waiting for them.
    """

    def __init__(self, folder: Path) -> None:
        """Load `model.onnx` of a version folder.

        Raises `FileNotFoundError`, `ValueError` if the file does not state its vocabulary size, or what onnxruntime
        raises.
        """
        import onnxruntime

        path = folder / "model.onnx"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        try:
            self.vocab_size = int(self._session.get_modelmeta().custom_metadata_map["vocab_size"])
        except (KeyError, ValueError):
            raise ValueError(f"{path} does not state the size of its vocabulary.") from None

    def embed(self, texts: Sequence[TokenIds]) -> Embeddings:
        """Pad the texts on the right to the longest and run the network; see `Encoder.embed`."""
        lengths = np.array([len(text) for text in texts], np.int32)
        ids = np.zeros((len(texts), int(lengths.max())), np.int64)
        for row, text in zip(ids, texts, strict=True):
            row[: len(text)] = text
        embeddings: Embeddings
        (embeddings,) = self._session.run(["sentence_embedding"], {"input_ids": ids, "lengths": lengths})
        return embeddings
