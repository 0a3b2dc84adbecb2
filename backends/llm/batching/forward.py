"""What continuous batching asks of a model: run some rows forward."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from backends.llm.engine import Tokens

Logits = npt.NDArray[np.float32]


class Forward(Protocol):
    """A model with room for `max_rows` sequences, each with keys and values for `context_length` tokens.

    Used by one thread. Logits may lie in a buffer that the next call overwrites, and the caller may write into it.
    Running the same tokens at the same place again is harmless: it stores the same keys and values.
    """

    @property
    def max_rows(self) -> int:
        """Rows that can run side by side."""

    @property
    def context_length(self) -> int:
        """Tokens that a row can hold."""

    @property
    def vocab_size(self) -> int:
        """Logits of one row."""

    def chunk(self, past: int) -> int:
        """How many prompt tokens, after `past` others, run in about the time that the running rows may be held."""

    def prefill(self, row: int, tokens: Tokens, past: int) -> Logits:
        """Store int64[k] tokens behind the `past` tokens of a row; float32[vocabulary] after the last of them."""

    def decode(self, tokens: Tokens, lengths: Tokens, first: int = 0) -> Logits:
        """Run one token each for the n rows from `first` on, which hold `lengths` tokens; float32[n, vocabulary]."""

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens' keys and values of one row to another."""

    def release(self, row: int) -> None:
        """Forget a row, and give its memory back."""

    def close(self) -> None:
        """Give everything back; nothing may be called after it."""
