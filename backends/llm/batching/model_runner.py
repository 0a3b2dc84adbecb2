"""The interface between continuous batching and a model: prefill, decode, and moving keys and values between slots.

A model runner knows slots and tokens. It knows no requests, sampling or text. `backends/llm/ort/model_runner.py`
implements it on onnxruntime.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from backends.llm.engine import TokenIds

Logits = npt.NDArray[np.float32]


class SavedKV(Protocol):
    """Keys and values saved from a slot. Only the model runner knows where and how they are stored."""

    @property
    def nbytes(self) -> int:
        """Bytes of the memory that they take."""


class ModelRunner(Protocol):
    """A model with a KV cache of `max_rows` slots, each for up to `context_length` tokens.

    One thread uses it. Returned logits may lie in a buffer that the next call overwrites, and the caller may write into
    it. Running the same tokens at the same position again is harmless: it stores the same keys and values.

    The keys and values that `prefill` stores depend, to the bit, only on the tokens up to the last one and on how
    earlier calls cut the prompt; the slot and the rest of the batch do not matter. If prompts are cut by `chunk_size`,
    they depend on the tokens alone, and may be saved from one slot and loaded into another.
    """

    @property
    def max_rows(self) -> int:
        """Number of slots."""

    @property
    def context_length(self) -> int:
        """Tokens that a slot can hold. One full slot always fits into `kv_cache_bytes`."""

    @property
    def vocab_size(self) -> int:
        """Number of logits of one sequence."""

    @property
    def kv_cache_bytes(self) -> int:
        """Bytes that all slots and all saved keys and values may take together."""

    def chunk_size(self, past: int) -> int:
        """Return how many prompt tokens to prefill after `past` others: as many as may delay the running sequences."""

    def kv_bytes(self, length: int) -> int:
        """Return the bytes of a slot that holds `length` tokens."""

    def prefill(self, slot: int, tokens: TokenIds, past: int) -> Logits:
        """Run int64[k] tokens after the `past` tokens of a slot. Return float32[vocabulary] after the last of them."""

    def decode(self, tokens: TokenIds, lengths: TokenIds, first_slot: int = 0) -> Logits:
        """Run one token in each of n slots from `first_slot` on. Return float32[n, vocabulary].

        `tokens` and `lengths` are int64[n]; `lengths` counts the tokens that each slot holds before the step.
        """

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Copy the keys and values of the tokens `start` to `stop` - 1 from one slot to another."""

    def save(self, slot: int, start: int, stop: int) -> SavedKV:
        """Return a copy of the keys and values of the tokens `start` to `stop` - 1 of a slot."""

    def load(self, slot: int, start: int, saved: SavedKV) -> None:
        """Write saved keys and values into a slot, after its first `start` tokens."""

    def swap(self, first: int, second: int, lengths: tuple[int, int]) -> None:
        """Exchange the contents of two slots, which hold `lengths` tokens. A length of 0 means a free slot.

        If it raises, the contents of both slots are unknown.
        """

    def release(self, slot: int) -> None:
        """Empty a slot, and give its memory back."""

    def close(self) -> None:
        """Free all memory. No other method may be called afterwards."""
