"""The network on onnxruntime: rows of tokens in, rows of numbers out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

TokenIds = npt.NDArray[np.int64]
Embeddings = npt.NDArray[np.float32]


class Encoder(Protocol):
    """Embeds a few texts at once; several threads may call it at the same time."""

    def embed(self, texts: Sequence[TokenIds]) -> Embeddings:
        """Give float32[texts, dimensions] for texts of at least one token, int64[tokens] each."""


class OrtEncoder:
    """The ONNX file that the builder's family `embedding` writes.

    Every call computes with one thread. Two calls at once on two cores finish more texts than one call on both: a
    network this small spends too much of its time on handing parts of each matrix to the other thread and waiting.
    """

    def __init__(self, folder: Path) -> None:
        """Load the file in a version folder. Raises `FileNotFoundError`, `ValueError`, or what onnxruntime raises."""
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
            raise ValueError(f"{path} does not say how many tokens it knows.") from None

    def embed(self, texts: Sequence[TokenIds]) -> Embeddings:
        """Pad on the right and run."""
        lengths = np.array([len(text) for text in texts], np.int32)
        ids = np.zeros((len(texts), int(lengths.max())), np.int64)
        for row, text in zip(ids, texts, strict=True):
            row[: len(text)] = text
        (rows,) = self._session.run(["sentence_embedding"], {"input_ids": ids, "lengths": lengths})
        found: Embeddings = rows
        return found
