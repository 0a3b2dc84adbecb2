"""The picture encoder on onnxruntime."""

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort

from backends.llm.vision.feature_cache import Embeddings
from backends.llm.vision.tiles import Tile


class VisionEncoder:
    """Tiles to vectors, a tile at a time: what a tile becomes does not depend on others, and little memory is used."""

    def __init__(self, model: Path, threads: int) -> None:
        """`threads` 0 is one for each core this process may use. Half of them are taken, for rows run meanwhile.

        Raises `FileNotFoundError`, and what onnxruntime raises for a broken model.
        """
        if not model.is_file():
            raise FileNotFoundError(f"{model} is missing.")
        options = ort.SessionOptions()
        options.intra_op_num_threads = max(1, (threads or len(os.sched_getaffinity(0))) // 2)
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A thread that waits here must not take a core from the rows.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def __call__(self, tile: Tile) -> Embeddings:
        """float32[3, tile, tile] to float32[n, hidden size]."""
        (features,) = self._session.run(["features"], {"pixel_values": tile[None]})
        vectors: Embeddings = features[0].astype(np.float32, copy=False)
        return vectors
