"""Image embeddings, the negative ids by which the model runner finds them, and a cache by image digest."""

import itertools
import threading
import weakref
from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from backends.llm.engine import TokenIds

Embeddings = npt.NDArray[np.float32]

_MAX_VECTORS_PER_IMAGE = 1 << 24
"""Ids reserved for each image: far more embeddings than fit into a context."""


class ImageFeatures:
    """The embeddings of one image, float32[n, hidden size]. They exist as long as anything refers to this object."""

    __slots__ = ("__weakref__", "serial", "vectors")

    def __init__(self, vectors: Embeddings, serial: int) -> None:
        self.vectors = vectors
        self.serial = serial

    @property
    def ids(self) -> TokenIds:
        """The id of each embedding, int64[n]: negative, unlike any token's, and never used for another image."""
        return -1 - (self.serial * _MAX_VECTORS_PER_IMAGE + np.arange(len(self.vectors), dtype=np.int64))


class ImageFeatureCache:
    """Finds features by image digest (a chat sends the same images again with every turn) and by id.

    Ids make a prompt with images one array of integers, so the prefix cache hashes it like any other. All methods may
    be called from any thread.
    """

    def __init__(self, max_bytes: int) -> None:
        """Cache up to `max_bytes` of the most recently used images. Features in use elsewhere exist beyond that."""
        self._max_bytes = max_bytes
        self._serials = itertools.count()
        self._lock = threading.Lock()
        self._by_digest: OrderedDict[bytes, ImageFeatures] = OrderedDict()
        self._nbytes = 0
        self._by_serial: weakref.WeakValueDictionary[int, ImageFeatures] = weakref.WeakValueDictionary()

    def get(self, digest: bytes) -> ImageFeatures | None:
        """Return the features of a cached image, and mark them as used now; None if they are not cached."""
        with self._lock:
            features = self._by_digest.get(digest)
            if features:
                self._by_digest.move_to_end(digest)
            return features

    def put(self, digest: bytes, vectors: Embeddings) -> ImageFeatures:
        """Add an image's embeddings, float32[n, hidden size], and give them ids."""
        with self._lock:
            features = ImageFeatures(vectors, next(self._serials))
            self._by_serial[features.serial] = features
            if previous := self._by_digest.pop(digest, None):
                self._nbytes -= previous.vectors.nbytes
            self._by_digest[digest] = features
            self._nbytes += vectors.nbytes
            while self._nbytes > self._max_bytes:
                _, dropped = self._by_digest.popitem(last=False)
                self._nbytes -= dropped.vectors.nbytes
            return features

    def fill_embeddings(self, ids: TokenIds, out: Embeddings) -> None:
        """Write the embeddings of the negative ids in int64[n] into `out`, float32[n, hidden size].

        Raises `KeyError` if nothing refers to one of the images any more.
        """
        places = np.flatnonzero(ids < 0)
        serials, indices = np.divmod(-1 - ids[places], _MAX_VECTORS_PER_IMAGE)
        for serial in np.unique(serials):
            features = self._by_serial[int(serial)]
            of_image = serials == serial
            out[places[of_image]] = features.vectors[indices[of_image]]
