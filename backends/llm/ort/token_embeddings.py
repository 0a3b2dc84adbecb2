"""Token embeddings, for models that take embeddings instead of token ids: those that accept images."""

from pathlib import Path

import numpy as np

from backends.llm.engine import TokenIds
from backends.llm.vision.feature_cache import Embeddings, ImageFeatureCache


class TokenEmbeddings:
    """Looks up embeddings: of tokens in a memory-mapped float32[vocabulary, hidden size], of images in their cache."""

    def __init__(self, path: Path, image_features: ImageFeatureCache) -> None:
        """Raises `FileNotFoundError` or `ValueError` with a sentence that names the file."""
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: the builder writes it for models that take token embeddings.")
        try:
            matrix = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError) as error:
            raise ValueError(f"{path} is not a matrix: {error}.") from error
        if matrix.ndim != 2 or matrix.dtype != np.float32:
            raise ValueError(f"{path} holds {matrix.dtype}{list(matrix.shape)}; float32[vocabulary, size] is wanted.")
        self._matrix = matrix
        self._image_features = image_features

    def __call__(self, tokens: TokenIds) -> Embeddings:
        """Return float32[n, hidden size] for int64[n] ids. Negative ids stand for image embeddings.

        Raises `KeyError` if nothing refers to one of the images any more.
        """
        vectors: Embeddings = np.ascontiguousarray(self._matrix[np.maximum(tokens, 0)])
        if (tokens < 0).any():
            self._image_features.fill_embeddings(tokens, vectors)
        return vectors
