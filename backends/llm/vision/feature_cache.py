"""The vectors of pictures, and the numbers by which a forward pass finds them."""

import itertools
import threading
import weakref
from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from backends.llm.engine import TokenIds

Embeddings = npt.NDArray[np.float32]

# Numbers of vectors that one picture may have; far more than fit into a context.
_MAX_VECTORS_PER_IMAGE = 1 << 24


class ImageFeatures:
    """The vectors of one picture, float32[n, hidden size]; they exist for as long as anything refers to this."""

    __slots__ = ("__weakref__", "serial", "vectors")

    def __init__(self, vectors: Embeddings, serial: int) -> None:
        self.vectors = vectors
        self.serial = serial

    @property
    def ids(self) -> TokenIds:
        """A number for each vector, int64[n]: below 0, where no token is, and never given to another picture."""
        return -1 - (self.serial * _MAX_VECTORS_PER_IMAGE + np.arange(len(self.vectors), dtype=np.int64))


class ImageFeatureCache:
    """Features by their digest, for pictures that come again with every turn of a chat, and by their numbers.

    So a prompt is one array of numbers, with which beginnings of prompts are told apart, whatever pictures they hold.
    All methods may be called from any thread.
    """

    def __init__(self, max_bytes: int) -> None:
        """Keep up to so many bytes of what nobody refers to, the latest used."""
        self._max_bytes = max_bytes
        self._serials = itertools.count()
        self._lock = threading.Lock()
        self._by_digest: OrderedDict[bytes, ImageFeatures] = OrderedDict()
        self._nbytes = 0
        self._by_serial: weakref.WeakValueDictionary[int, ImageFeatures] = weakref.WeakValueDictionary()

    def get(self, digest: bytes) -> ImageFeatures | None:
        """The features of a picture that came lately."""
        with self._lock:
            found = self._by_digest.get(digest)
            if found:
                self._by_digest.move_to_end(digest)
            return found

    def put(self, digest: bytes, vectors: Embeddings) -> ImageFeatures:
        """Hang up the vectors of a picture."""
        with self._lock:
            features = ImageFeatures(vectors, next(self._serials))
            self._by_serial[features.serial] = features
            if before := self._by_digest.pop(digest, None):
                self._nbytes -= before.vectors.nbytes
            self._by_digest[digest] = features
            self._nbytes += vectors.nbytes
            while self._nbytes > self._max_bytes:
                _, dropped = self._by_digest.popitem(last=False)
                self._nbytes -= dropped.vectors.nbytes
            return features

    def fill_embeddings(self, ids: TokenIds, into: Embeddings) -> None:
        """Put the vectors of the numbers below 0 into their places in float32[n, hidden size].

        Raises `KeyError` where nobody refers to a picture any more.
        """
        places = np.flatnonzero(ids < 0)
        serials, indices = np.divmod(-1 - ids[places], _MAX_VECTORS_PER_IMAGE)
        for serial in np.unique(serials):
            features = self._by_serial[int(serial)]
            mine = serials == serial
            into[places[mine]] = features.vectors[indices[mine]]
