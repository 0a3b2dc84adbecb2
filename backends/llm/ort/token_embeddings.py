"""The vectors of tokens, for models that take vectors instead of tokens."""

from pathlib import Path

import numpy as np

from backends.llm.engine import TokenIds
from backends.llm.vision.feature_cache import Embeddings, ImageFeatureCache


class TokenEmbeddings:
    """A matrix float32[vocabulary, hidden size], mapped into memory, and the vectors of pictures in a gallery."""

    def __init__(self, path: Path, gallery: ImageFeatureCache) -> None:
        """Raises `FileNotFoundError` or `ValueError` with a sentence that names the file."""
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: the model takes vectors, so the builder writes it beside it.")
        try:
            matrix = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError) as error:
            raise ValueError(f"{path} is not a matrix: {error}.") from error
        if matrix.ndim != 2 or matrix.dtype != np.float32:
            raise ValueError(f"{path} holds {matrix.dtype}{list(matrix.shape)}; float32[vocabulary, size] is wanted.")
        self._matrix = matrix
        self._image_features = gallery

    def __call__(self, tokens: TokenIds) -> Embeddings:
        """int64[n], where numbers below 0 are those of pictures' vectors, to float32[n, hidden size]."""
        vectors: Embeddings = np.ascontiguousarray(self._matrix[np.maximum(tokens, 0)])
        if (tokens < 0).any():
            self._image_features.fill_embeddings(tokens, vectors)
        return vectors
