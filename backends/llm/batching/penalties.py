"""Repetition, presence and frequency penalties: lower the logits of tokens that the sequence already contains."""

import numpy as np
import numpy.typing as npt

from backends.llm.batching.model_runner import Logits
from backends.llm.engine import TokenIds
from backends.llm.sampling_params import SamplingParams


class Penalties:
    """The penalties of one sequence, in vLLM's order.

    Counting a token costs O(1), applying O(distinct tokens seen); no step walks the whole vocabulary.
    """

    def __init__(self, sampling: SamplingParams, prompt: TokenIds, vocab_size: int) -> None:
        self._repetition = np.float32(sampling.repetition_penalty)
        self._presence = np.float32(sampling.presence_penalty)
        self._frequency = np.float32(sampling.frequency_penalty)
        self._counts: npt.NDArray[np.int32] = np.zeros(vocab_size, np.int32)
        self._generated = _DistinctTokens(vocab_size)
        self._seen = _DistinctTokens(vocab_size)
        if self._repetition != 1:
            for token in np.unique(prompt):
                self._seen.add(int(token))

    @staticmethod
    def are_enabled(sampling: SamplingParams) -> bool:
        """Return whether any penalty differs from its neutral value."""
        return bool(sampling.presence_penalty or sampling.frequency_penalty or sampling.repetition_penalty != 1)

    def add_token(self, token: int) -> None:
        """Count a generated token."""
        self._counts[token] += 1
        self._generated.add(token)
        self._seen.add(token)

    def apply(self, logits: Logits) -> None:
        """Apply the penalties to float32[vocabulary] in place."""
        if self._repetition != 1:
            tokens = self._seen.tokens
            seen = logits[tokens]
            logits[tokens] = np.where(seen > 0, seen / self._repetition, seen * self._repetition)
        if self._frequency or self._presence:
            tokens = self._generated.tokens
            logits[tokens] -= self._frequency * self._counts[tokens] + self._presence


class _DistinctTokens:
    """A set of token ids that is available as an array int64[n]."""

    def __init__(self, vocab_size: int) -> None:
        self._member: npt.NDArray[np.bool_] = np.zeros(vocab_size, np.bool_)
        self._tokens: TokenIds = np.empty(64, np.int64)
        self._size = 0

    @property
    def tokens(self) -> TokenIds:
        return self._tokens[: self._size]

    def add(self, token: int) -> None:
        if self._member[token]:
            return
        self._member[token] = True
        if self._size == len(self._tokens):
            self._tokens = np.concatenate([self._tokens, np.empty_like(self._tokens)])
        self._tokens[self._size] = token
        self._size += 1
