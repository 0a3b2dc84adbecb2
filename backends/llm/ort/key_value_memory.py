"""Memory for the keys and values of all rows, of which only what is used exists."""

import mmap

import numpy as np
import numpy.typing as npt

# Linux; Python's mmap does not name it.
_MAP_NORESERVE = 0x4000


class KeyValueMemory:
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
        per_page = max(1, mmap.PAGESIZE // (head_size * dtype.itemsize))
        self.context = -(-context // per_page) * per_page
        shape = (tensors, rows, heads, self.context, head_size)
        self._row_bytes = heads * self.context * head_size * dtype.itemsize
        size = tensors * rows * self._row_bytes
        self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            self._map.madvise(mmap.MADV_NOHUGEPAGE)
        self._array = np.frombuffer(self._map, dtype).reshape(shape)
        self._base = self._array.ctypes.data

    def address(self, tensor: int, row: int) -> int:
        """Where a row of a tensor begins; the rows behind it follow."""
        return self._base + (tensor * self.rows + row) * self._row_bytes

    def shape(self, rows: int) -> list[int]:
        """The shape of some rows of one tensor."""
        return [rows, *self._array.shape[2:]]

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of a row."""
        self._array[:, target, :, :length] = self._array[:, source, :, :length]

    def release(self, row: int) -> None:
        """Give the pages of a row back to the system; it reads as zeros again."""
        for tensor in range(self.tensors):
            self._map.madvise(mmap.MADV_DONTNEED, (tensor * self.rows + row) * self._row_bytes, self._row_bytes)

    def close(self) -> None:
        """Give everything back, as soon as nothing looks into it any more."""
        del self._array
        self._map.close()
