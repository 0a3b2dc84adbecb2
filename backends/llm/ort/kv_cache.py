"""Memory for the keys and values of all rows, of which only what is used exists."""

import math
import mmap

import numpy as np
import numpy.typing as npt

from backends.llm.batching.model_runner import SavedKV
from backends.llm.ort.page_remapping import remap_pages

# Linux; Python's mmap does not name it.
_MAP_NORESERVE = 0x4000
# A moved row is a mapping of its own for each tensor, and Linux allows a process 65,530 of them.
_MAX_MAPPINGS = 30_000


class KVCache:
    """An array [layers x 2, rows, heads, context, head size] of virtual memory.

    Rows x context is far more than a machine has (6 GB for a model of 135 million parameters), so nothing is reserved:
    a page comes into being when it is first written, and goes when its row is released. Huge pages are refused, for one
    token would bring two megabytes a head into being.

    A row of one layer is contiguous, and so are the first n rows: onnxruntime is handed addresses into this memory.
    """

    def __init__(self, tensors: int, rows: int, heads: int, context: int, head_size: int, dtype: npt.DTypeLike) -> None:
        """`tensors` counts the keys and the values of each layer."""
        dtype = np.dtype(dtype)
        self.tensors, self.rows = tensors, rows
        # Whole pages for each head, so that giving back a part of a row touches nobody else's page.
        self.tokens_per_page = mmap.PAGESIZE // math.gcd(mmap.PAGESIZE, head_size * dtype.itemsize)
        """The fewest tokens that fill pages of a head without a rest: a power of two."""
        self.context = -(-context // self.tokens_per_page) * self.tokens_per_page
        self.token_bytes = tensors * heads * head_size * dtype.itemsize
        # One row more than is ever run, by way of which two others change places.
        self._num_slots = rows + 1
        shape = (tensors, self._num_slots, heads, self.context, head_size)
        self._row_bytes = heads * self.context * head_size * dtype.itemsize
        size = tensors * self._num_slots * self._row_bytes
        self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            self._map.madvise(mmap.MADV_NOHUGEPAGE)
        self._array = np.frombuffer(self._map, dtype).reshape(shape)
        self._base = self._array.ctypes.data
        self._can_remap_pages = 2 * tensors * self._num_slots <= _MAX_MAPPINGS and self._row_bytes % mmap.PAGESIZE == 0

    def address(self, tensor: int, row: int) -> int:
        """Where a row of a tensor begins; the rows behind it follow."""
        return self._base + (tensor * self._num_slots + row) * self._row_bytes

    def shape(self, rows: int) -> list[int]:
        """The shape of some rows of one tensor."""
        return [rows, *self._array.shape[2:]]

    def kv_bytes(self, length: int) -> int:
        """The memory of a row that holds `length` tokens: whole pages."""
        return -(-length // self.tokens_per_page) * self.tokens_per_page * self.token_bytes

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Copy a part of a row, by numbers of tokens."""
        self._array[:, target, :, start:stop] = self._array[:, source, :, start:stop]

    def save(self, row: int, start: int, stop: int) -> SavedKV:
        """A copy of a part of a row, [tensors, heads, tokens, head size].

        It has pages of its own: from the heap, memory would come back to the system only now and then.
        """
        part = self._array[:, row, :, start:stop]
        memory = mmap.mmap(-1, part.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        saved = np.frombuffer(memory, part.dtype).reshape(part.shape)
        saved[...] = part
        return saved

    def load(self, row: int, start: int, saved: SavedKV) -> None:
        """Write what was saved behind the first `start` tokens of a row."""
        self._array[:, row, :, start : start + saved.shape[2]] = saved

    def swap(self, one: int, other: int, lengths: tuple[int, int]) -> None:
        """Exchange two rows of so many tokens; one that has none is empty, and so is then the other.

        Their pages change places where the system can do that, in a millisecond or so, however long they are.
        """
        first, second = lengths
        if not second:
            self._move(one, other, first)
        elif not first:
            self._move(other, one, second)
        else:
            self._move(one, self.rows, first)
            self._move(other, one, second)
            self._move(self.rows, other, first)

    def _move(self, source: int, target: int, length: int) -> None:
        if self._can_remap_pages:
            addresses = [(self.address(tensor, source), self.address(tensor, target)) for tensor in range(self.tensors)]
            self._can_remap_pages = False  # and never again, where this raises
            self._can_remap_pages = remap_pages(addresses, self._row_bytes)
        if not self._can_remap_pages:
            self.copy(source, target, 0, length)
            self.release(source)

    def release(self, row: int) -> None:
        """Give the pages of a row back to the system; it reads as zeros again."""
        for tensor in range(self.tensors):
            self._map.madvise(mmap.MADV_DONTNEED, (tensor * self._num_slots + row) * self._row_bytes, self._row_bytes)

    def close(self) -> None:
        """Give everything back, as soon as nothing looks into it any more."""
        del self._array
        self._map.close()
