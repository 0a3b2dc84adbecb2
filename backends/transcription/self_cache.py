"""The keys and values of the tokens that rows have read: rows of unequal length in one batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
MASKED = np.float32(-1e9)


class Tensor(Protocol):
    """A tensor of the network: an `onnxruntime.OrtValue`."""

    def numpy(self) -> Array:
        """Return its values."""


@dataclass(frozen=True, eq=False, slots=True)
class SelfCache:
    """The self-attention cache of n rows, `past` positions each, of which some are padding.

    `keys[i]` is [n, heads, head size, past] and `values[i]` [n, heads, past, head size] of layer i; `valid` is bool[n,
    past], false where a position is padding.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    valid: npt.NDArray[np.bool_]

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        return len(self.valid)

    @property
    def past(self) -> int:
        """The number of positions, padding included."""
        return int(self.valid.shape[1])


def assemble(rows: Sequence[tuple[SelfCache, int]], to_tensor: Callable[[Array], Tensor]) -> SelfCache:
    """Return a cache of rows that are taken from others, in order, each padded on the left to the longest."""
    firsts = [_first_valid(cache.valid[index]) for cache, index in rows]
    past = max(cache.past - first for (cache, _), first in zip(rows, firsts, strict=True))
    valid = np.zeros((len(rows), past), bool)
    for number, ((cache, index), first) in enumerate(zip(rows, firsts, strict=True)):
        valid[number, past - (cache.past - first) :] = cache.valid[index, first:]
    layers = range(len(rows[0][0].keys))
    keys = [_assemble([(cache.keys[layer], index) for cache, index in rows], firsts, past, -1) for layer in layers]
    values = [_assemble([(cache.values[layer], index) for cache, index in rows], firsts, past, -2) for layer in layers]
    return SelfCache([to_tensor(array) for array in keys], [to_tensor(array) for array in values], valid)


def _first_valid(valid: npt.NDArray[np.bool_]) -> int:
    return int(valid.argmax()) if valid.any() else len(valid)


def _assemble(rows: Sequence[tuple[Tensor, int]], firsts: Sequence[int], past: int, axis: int) -> Array:
    read: dict[int, Array] = {}
    arrays = [
        read.setdefault(id(tensor), tensor.numpy()) if id(tensor) not in read else read[id(tensor)]
        for tensor, _ in rows
    ]
    shape = list(arrays[0].shape)
    shape[0], shape[axis] = len(rows), past
    found = np.zeros(shape, arrays[0].dtype)
    for number, (array, (_, index), first) in enumerate(zip(arrays, rows, firsts, strict=True)):
        length = array.shape[axis] - first
        if axis == -1:
            found[number, :, :, past - length :] = array[index, :, :, first:]
        else:
            found[number, :, past - length :] = array[index, :, first:]
    return found


def attention_mask(valid: npt.NDArray[np.bool_], counts: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return float32[n, 1, t, past + t] for t = max(`counts`) new positions after `valid`, bool[n, past].

    Row i reads `counts[i]` new tokens, padded on the left. A position sees the valid ones before it and itself.
    """
    num_rows, past = valid.shape
    new = max(counts)
    mask = np.full((num_rows, 1, new, past + new), MASKED, np.float32)
    seen = np.where(valid, np.float32(0), MASKED)[:, None]
    mask[:, 0, :, :past] = seen
    if new == 1 and min(counts) == 1:
        mask[:, 0, 0, past] = 0
        return mask
    for row, count in enumerate(counts):
        first = new - count
        mask[row, 0, first:, past + first :] = np.triu(np.full((count, count), MASKED, np.float32), 1)
    return mask
