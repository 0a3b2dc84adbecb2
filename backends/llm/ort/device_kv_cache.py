"""The KV cache in the memory of a device: slots and saved blocks, allocated once, and moved by graphs on the device.

A GPU has no virtual memory that grows with use, so `kv_cache.py` cannot serve it. Nothing here needs a library of the
device but onnxruntime, and everything runs on the CPU's memory as well.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from backends.llm.batching.model_runner import SavedKV
from backends.llm.engine import TokenIds
from backends.llm.ort.execution_device import ExecutionDevice
from backends.llm.ort.onnx_graph import Node, Value, encode_model

TOKENS_PER_PAGE = 16
"""Tokens that saved blocks are allocated in: the smallest chunk of a prompt."""
MOVED_TOKENS = 512
"""Most tokens that one run moves, which bounds the temporary memory of a move."""


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class DeviceBlock:
    """Saved keys and values. Their pages are free again when nothing refers to the block any more."""

    positions: TokenIds
    """int64[tokens]: where in the pool each token is."""
    nbytes: int


@dataclass(frozen=True, slots=True)
class _Region:
    """One array [heads, tokens, head size] of each tensor: a slot, or the pool of saved blocks."""

    addresses: Sequence[int]
    shape: tuple[int, int, int]


class DeviceKVCache:
    """Per tensor an array [slots, heads, context, head size], and a pool [heads, tokens, head size] of saved blocks.

    All of it is allocated by the constructor. A slot of one tensor is contiguous, and so are the first n slots, so
    onnxruntime reads and writes them directly. Keys and values never leave the device.
    """

    tokens_per_page = TOKENS_PER_PAGE

    def __init__(
        self,
        tensors: int,
        num_slots: int,
        heads: int,
        context: int,
        head_size: int,
        dtype: npt.DTypeLike,
        *,
        pool_bytes: int,
        device: ExecutionDevice,
    ) -> None:
        """`tensors` is twice the number of layers (keys and values), `num_slots` the number of slots.

        `context` is rounded up to whole pages; the pool has as many pages as `pool_bytes` hold, and a place for moves.
        Raises what onnxruntime raises if the memory of the device does not suffice.
        """
        self._device, self._dtype = device, np.dtype(dtype).type
        self.context = -(-context // TOKENS_PER_PAGE) * TOKENS_PER_PAGE
        self.token_bytes = tensors * heads * head_size * np.dtype(dtype).itemsize
        self._shape = (num_slots, heads, self.context, head_size)
        pages = pool_bytes // (TOKENS_PER_PAGE * self.token_bytes)
        self._free_pages = list(range(pages))
        pool_tokens = pages * TOKENS_PER_PAGE + MOVED_TOKENS
        self._scratch = np.arange(pool_tokens - MOVED_TOKENS, pool_tokens)
        self._allocation = device.create_session(_allocation_graph(self._dtype))
        self._transfer = device.create_session(_transfer_graph(tensors, heads, head_size, self._dtype))
        self._slots = [self._allocate(self._shape) for _ in range(tensors)]
        pool = [self._allocate((1, heads, pool_tokens, head_size)) for _ in range(tensors)]
        self._pool_memory = pool
        self._pool = _Region([value.data_ptr() for value in pool], (heads, pool_tokens, head_size))
        self._slot_bytes = heads * self.context * head_size * np.dtype(dtype).itemsize

    def address(self, tensor: int, slot: int) -> int:
        """Return the address of a slot of a tensor, on the device. The slots after it follow in memory."""
        address: int = self._slots[tensor].data_ptr() + slot * self._slot_bytes
        return address

    def shape(self, num_slots: int) -> list[int]:
        """Return the shape of `num_slots` slots of one tensor: [num_slots, heads, context, head size]."""
        return [num_slots, *self._shape[1:]]

    def kv_bytes(self, length: int) -> int:
        """Return the bytes of `length` tokens, in whole pages."""
        return -(-length // TOKENS_PER_PAGE) * TOKENS_PER_PAGE * self.token_bytes

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Copy the tokens `start` to `stop` - 1 from slot `source` to slot `target`."""
        positions = np.arange(start, stop)
        self._move(self._slot(source), positions, self._slot(target), positions)

    def save(self, slot: int, start: int, stop: int) -> DeviceBlock:
        """Copy the tokens `start` to `stop` - 1 of a slot into the pool. Raises `MemoryError` if it is full."""
        num_pages = -(-(stop - start) // TOKENS_PER_PAGE)
        if num_pages > len(self._free_pages):
            raise MemoryError("The prefix cache has no free pages.")
        pages = [self._free_pages.pop() for _ in range(num_pages)]
        positions = (np.array(pages)[:, None] * TOKENS_PER_PAGE + np.arange(TOKENS_PER_PAGE)).reshape(-1)
        block = DeviceBlock(positions[: stop - start], self.kv_bytes(stop - start))
        weakref.finalize(block, self._free_pages.extend, pages)
        self._move(self._slot(slot), np.arange(start, stop), self._pool, block.positions)
        return block

    def load(self, slot: int, start: int, saved: SavedKV) -> None:
        """Write saved keys and values into a slot, after its first `start` tokens."""
        assert isinstance(saved, DeviceBlock)
        positions = np.arange(start, start + len(saved.positions))
        self._move(self._pool, saved.positions, self._slot(slot), positions)

    def swap(self, first: int, second: int, lengths: tuple[int, int]) -> None:
        """Exchange the contents of two slots that hold `lengths` tokens; 0 means an empty slot."""
        for start in range(0, max(lengths), MOVED_TOKENS):
            of_first, of_second = (np.arange(start, min(start + MOVED_TOKENS, length)) for length in lengths)
            scratch = self._scratch[: len(of_first)]
            if len(of_second):
                self._move(self._slot(first), of_first, self._pool, scratch)
                self._move(self._slot(second), of_second, self._slot(first), of_second)
                self._move(self._pool, scratch, self._slot(second), of_first)
            else:
                self._move(self._slot(first), of_first, self._slot(second), of_first)

    def release(self, slot: int) -> None:
        """Do nothing: the next sequence overwrites the slot, and its memory stays allocated."""

    def close(self) -> None:
        """Free the memory."""
        self._slots.clear()
        self._pool_memory.clear()
        del self._transfer, self._allocation

    def _slot(self, slot: int) -> _Region:
        _, heads, context, head_size = self._shape
        return _Region([self.address(tensor, slot) for tensor in range(len(self._slots))], (heads, context, head_size))

    def _allocate(self, shape: tuple[int, ...]) -> ort.OrtValue:
        """Return zeros. The session's allocator takes as much as is asked; onnxruntime's default rounds up."""
        binding = self._allocation.io_binding()
        binding.bind_cpu_input("shape", np.array(shape, np.int64))
        binding.bind_output("zeros", self._device.name, self._device.number)
        self._allocation.run_with_iobinding(binding)
        return binding.get_outputs()[0]

    def _move(self, source: _Region, from_: TokenIds, target: _Region, to: TokenIds) -> None:
        """Copy the tokens at the positions `from_` of one region to the positions `to` of another."""
        for start in range(0, len(from_), MOVED_TOKENS):
            self._move_at_once(source, from_[start : start + MOVED_TOKENS], target, to[start : start + MOVED_TOKENS])

    def _move_at_once(self, source: _Region, from_: TokenIds, target: _Region, to: TokenIds) -> None:
        heads = target.shape[0]
        indices = np.empty((heads, len(to), 2), np.int64)
        indices[..., 0], indices[..., 1] = np.arange(heads)[:, None], to
        binding = self._transfer.io_binding()
        binding.bind_cpu_input("positions", np.ascontiguousarray(from_, np.int64))
        binding.bind_cpu_input("indices", indices)
        place = (self._device.name, self._device.number, self._dtype)
        for tensor, (address, written) in enumerate(zip(source.addresses, target.addresses, strict=True)):
            binding.bind_input(f"source.{tensor}", *place, source.shape, address)
            binding.bind_input(f"target.{tensor}", *place, target.shape, written)
            binding.bind_output(f"result.{tensor}", *place, target.shape, written)
        self._transfer.run_with_iobinding(binding)


def _allocation_graph(dtype: type[np.generic]) -> bytes:
    """Return a graph that makes zeros of a shape."""
    node = Node("ConstantOfShape", ["shape"], ["zeros"], {"value": dtype(0)})
    return encode_model([node], [Value("shape", np.int64, [4])], [Value("zeros", dtype, ["a", "b", "c", "d"])])


def _transfer_graph(tensors: int, heads: int, head_size: int, dtype: type[np.generic]) -> bytes:
    """Return a graph that copies tokens at `positions` of `source` to `indices` (head, position) of `target`.

    `result` is bound to the memory of `target`, so that the kernels of ScatterND write the copied tokens alone.
    """
    nodes, inputs, outputs = [], [Value("positions", np.int64, ["n"]), Value("indices", np.int64, [heads, "n", 2])], []
    for number in range(tensors):
        source, target, result = f"source.{number}", f"target.{number}", f"result.{number}"
        nodes.append(Node("Gather", [source, "positions"], [f"block.{number}"], {"axis": 1}))
        nodes.append(Node("ScatterND", [target, "indices", f"block.{number}"], [result]))
        inputs += [Value(source, dtype, [heads, "s", head_size]), Value(target, dtype, [heads, "t", head_size])]
        outputs.append(Value(result, dtype, [heads, "t", head_size]))
    return encode_model(nodes, inputs, outputs)
