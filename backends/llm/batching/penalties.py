"""Penalties on tokens that were seen before."""

import numpy as np
import numpy.typing as npt

from backends.llm.batching.model_runner import Logits
from backends.llm.engine import TokenIds
from backends.llm.sampling_params import SamplingParams


class Penalties:
    """The repetition, frequency and presence penalties of one sequence, in vLLM's order.

    Counting costs a step O(1), applying O(distinct tokens seen); the vocabulary is never walked.
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
        """Whether any penalty differs from its neutral value."""
        return bool(sampling.presence_penalty or sampling.frequency_penalty or sampling.repetition_penalty != 1)

    def add_token(self, token: int) -> None:
        """Remember that `token` was generated."""
        self._counts[token] += 1
        self._generated.add(token)
        self._seen.add(token)

    def apply(self, logits: Logits) -> None:
        """Change the logits in place."""
        if self._repetition != 1:
            tokens = self._seen.tokens
            seen = logits[tokens]
            logits[tokens] = np.where(seen > 0, seen / self._repetition, seen * self._repetition)
        if self._frequency or self._presence:
            tokens = self._generated.tokens
            logits[tokens] -= self._frequency * self._counts[tokens] + self._presence


class _DistinctTokens:
    """Token ids without repeats, as an array that grows."""

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
