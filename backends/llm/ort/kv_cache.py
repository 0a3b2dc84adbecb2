"""The KV cache: virtual memory for the keys and values of all slots, with physical pages only where tokens are stored.

It stores, copies and moves keys and values. It does not know which sequence has which slot.
"""

import math
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.llm.batching.model_runner import SavedKV
from backends.llm.ort.page_remapping import remap_pages

# Linux; Python's mmap does not name it.
_MAP_NORESERVE = 0x4000
_MAX_MAPPINGS = 30_000
"""Most mappings that moving pages may create. Each moved slot needs one per tensor; Linux allows a process 65,530."""


class KVCache:
    """An array [layers x 2, slots, heads, context, head size] of virtual memory.

    All slots at full context would take far more memory than a machine has (6 GB for a model of 135 million
    parameters). So nothing is reserved: a page exists from its first write until its slot is released. Huge pages are
    disabled, because one token would allocate two megabytes per head.

    A slot of one tensor is contiguous, and so are the first n slots: onnxruntime reads and writes this memory directly.
    """

    def __init__(
        self, tensors: int, num_slots: int, heads: int, context: int, head_size: int, dtype: npt.DTypeLike
    ) -> None:
        """`tensors` is twice the number of layers (keys and values), `num_slots` the number of slots.

        `context` is rounded up to whole pages per head.
        """
        dtype = np.dtype(dtype)
        self.tensors, self.num_slots = tensors, num_slots
        # Whole pages for each head, so that releasing a slot touches no page of another.
        self.tokens_per_page = mmap.PAGESIZE // math.gcd(mmap.PAGESIZE, head_size * dtype.itemsize)
        """The fewest tokens of one head that fill whole pages: a power of two."""
        self.context = -(-context // self.tokens_per_page) * self.tokens_per_page
        self.token_bytes = tensors * heads * head_size * dtype.itemsize
        # One slot more than ever runs: a temporary place for swapping two others.
        self._num_allocated = num_slots + 1
        shape = (tensors, self._num_allocated, heads, self.context, head_size)
        self._slot_bytes = heads * self.context * head_size * dtype.itemsize
        num_bytes = tensors * self._num_allocated * self._slot_bytes
        self._map = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            self._map.madvise(mmap.MADV_NOHUGEPAGE)
        self._array = np.frombuffer(self._map, dtype).reshape(shape)
        self._base = self._array.ctypes.data
        self._can_remap_pages = (
            2 * tensors * self._num_allocated <= _MAX_MAPPINGS and self._slot_bytes % mmap.PAGESIZE == 0
        )

    def address(self, tensor: int, slot: int) -> int:
        """Return the address of a slot of a tensor. The slots after it follow in memory."""
        return self._base + (tensor * self._num_allocated + slot) * self._slot_bytes

    def shape(self, num_slots: int) -> list[int]:
        """Return the shape of `num_slots` slots of one tensor: [num_slots, heads, context, head size]."""
        return [num_slots, *self._array.shape[2:]]

    def kv_bytes(self, length: int) -> int:
        """Return the bytes of a slot that holds `length` tokens, in whole pages."""
        return -(-length // self.tokens_per_page) * self.tokens_per_page * self.token_bytes

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Copy the tokens `start` to `stop` - 1 from slot `source` to slot `target`."""
        self._array[:, target, :, start:stop] = self._array[:, source, :, start:stop]

    def save(self, slot: int, start: int, stop: int) -> npt.NDArray[Any]:
        """Return a copy of the tokens `start` to `stop` - 1 of a slot, [tensors, heads, tokens, head size].

        It has pages of its own, which the system gets back at once when it is dropped; heap memory might stay.
        """
        source_view = self._array[:, slot, :, start:stop]
        memory = mmap.mmap(-1, source_view.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        saved = np.frombuffer(memory, source_view.dtype).reshape(source_view.shape)
        saved[...] = source_view
        return saved

    def load(self, slot: int, start: int, saved: SavedKV) -> None:
        """Write saved keys and values into a slot, after its first `start` tokens."""
        assert isinstance(saved, np.ndarray)
        self._array[:, slot, :, start : start + saved.shape[2]] = saved

    def swap(self, first: int, second: int, lengths: tuple[int, int]) -> None:
        """Exchange the contents of two slots that hold `lengths` tokens; 0 means an empty slot.

        If the system can remap pages, this takes about a millisecond for any length; otherwise the tokens are copied.
        """
        first_length, second_length = lengths
        if not second_length:
            self._move(first, second, first_length)
        elif not first_length:
            self._move(second, first, second_length)
        else:
            self._move(first, self.num_slots, first_length)
            self._move(second, first, second_length)
            self._move(self.num_slots, second, first_length)

    def _move(self, source: int, target: int, length: int) -> None:
        if self._can_remap_pages:
            addresses = [(self.address(tensor, source), self.address(tensor, target)) for tensor in range(self.tensors)]
            self._can_remap_pages = False  # not tried again if this raises
            self._can_remap_pages = remap_pages(addresses, self._slot_bytes)
        if not self._can_remap_pages:
            self.copy(source, target, 0, length)
            self.release(source)

    def release(self, slot: int) -> None:
        """Give the pages of a slot back to the system; it then reads as zeros."""
        for tensor in range(self.tensors):
            self._map.madvise(
                mmap.MADV_DONTNEED, (tensor * self._num_allocated + slot) * self._slot_bytes, self._slot_bytes
            )

    def close(self) -> None:
        """Free the memory, as soon as no array refers to it any more."""
        del self._array
        self._map.close()
