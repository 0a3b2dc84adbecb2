"""The image encoder on onnxruntime: tiles in, image embeddings out."""

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort

from backends.llm.vision.feature_cache import Embeddings
from backends.llm.vision.tiles import Tile


class VisionEncoder:
    """Encodes one tile at a time: a tile's embeddings do not depend on other tiles, and little memory is needed."""

    def __init__(self, model: Path, threads: int) -> None:
        """`threads` 0 means one for each core this process may use. The encoder takes half of them, because decode
        steps run meanwhile.

        Raises `FileNotFoundError`, and what onnxruntime raises for a broken model.
        """
        if not model.is_file():
            raise FileNotFoundError(f"{model} is missing.")
        options = ort.SessionOptions()
        options.intra_op_num_threads = max(1, (threads or len(os.sched_getaffinity(0))) // 2)
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A waiting thread must not take a core from the decode steps.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def __call__(self, tile: Tile) -> Embeddings:
        """Return the embeddings float32[n, hidden size] of a tile float32[3, tile, tile]."""
        (features,) = self._session.run(["features"], {"pixel_values": tile[None]})
        vectors: Embeddings = features[0].astype(np.float32, copy=False)
        return vectors
