"""What continuous batching asks of a model: run some rows forward."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from backends.llm.engine import TokenIds

Logits = npt.NDArray[np.float32]
SavedKV = npt.NDArray[Any]
"""Keys and values outside any row, in a shape that is the forward pass's own affair."""


class ModelRunner(Protocol):
    """A model with room for `max_rows` sequences, each with keys and values for `context_length` tokens.

    Used by one thread. Logits may lie in a buffer that the next call overwrites, and the caller may write into it.
    Running the same tokens at the same place again is harmless: it stores the same keys and values.

    What a prefill stores is a function of all tokens up to the last of its own and of where earlier calls were cut, to
    the bit, whichever row it is and whoever else runs. Where prompts are cut by `chunk`, it is therefore a function of
    the tokens alone, and may be saved from one row and loaded into another.
    """

    @property
    def max_rows(self) -> int:
        """Rows that can run side by side."""

    @property
    def context_length(self) -> int:
        """Tokens that a row can hold. One full row always fits into `kv_memory`."""

    @property
    def vocab_size(self) -> int:
        """Logits of one row."""

    @property
    def kv_cache_bytes(self) -> int:
        """Bytes that all rows and all that is saved may take together."""

    def chunk_size(self, past: int) -> int:
        """How many prompt tokens, after `past` others, run in about the time that the running rows may be held."""

    def kv_bytes(self, length: int) -> int:
        """The memory of a row that holds `length` tokens."""

    def prefill(self, row: int, tokens: TokenIds, past: int) -> Logits:
        """Store int64[k] tokens behind the `past` tokens of a row; float32[vocabulary] after the last of them."""

    def decode(self, tokens: TokenIds, lengths: TokenIds, first: int = 0) -> Logits:
        """Run one token each for the n rows from `first` on, which hold `lengths` tokens; float32[n, vocabulary]."""

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Copy the keys and values of the tokens from `start` to before `stop` of one row to another."""

    def save(self, row: int, start: int, stop: int) -> SavedKV:
        """A copy of the keys and values of the tokens from `start` to before `stop` of a row."""

    def load(self, row: int, start: int, saved: SavedKV) -> None:
        """Store what was saved behind the `start` tokens of a row."""

    def swap(self, one: int, other: int, lengths: tuple[int, int]) -> None:
        """Exchange two rows, which hold so many tokens; a row that holds none is free, and so becomes the other.

        Where it raises, what the two hold is not known.
        """

    def release(self, row: int) -> None:
        """Forget a row, and give its memory back."""

    def close(self) -> None:
        """Give everything back; nothing may be called after it."""
