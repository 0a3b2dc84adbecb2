"""The choice of the next token, by Whisper's own rules."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from backends.transcription.log_mel import Floats
from backends.transcription.model_config import ModelConfig

_MAX_INITIAL_TIMESTAMP = 50
"""The first timestamp is at most 1 s: 50 steps of 0.02 s."""


class TokenRules:
    """Chooses tokens from logits, as openai-whisper's `DecodingTask` does with its default options."""

    def __init__(self, config: ModelConfig) -> None:
        special = config.tokens
        self._end, self._first_timestamp = special.end_of_text, special.timestamp_begin
        # No special token but the end of the text may be written; timestamps have rules of their own.
        never = {*config.suppress, *range(special.end_of_text + 1, special.timestamp_begin)} - {special.end_of_text}
        self._never = np.array(sorted(token for token in never if token < config.vocab_size), np.int64)
        self._not_first = np.array(config.suppress_at_begin, np.int64)

    def choose(
        self,
        logits: Floats,
        written: Sequence[int],
        *,
        temperature: float = 0.0,
        random: np.random.Generator | None = None,
    ) -> tuple[int, float]:
        """Return the next token after `written`, and its log probability after the rules.

        Changes `logits`, float32[vocabulary]. `random` is needed for a temperature above 0.
        """
        logits[self._never] = -np.inf
        if not written:
            logits[self._not_first] = -np.inf
        self._restrict_timestamps(logits, written)
        highest = logits.max()
        weights = np.exp(logits - highest)
        total = float(weights.sum())
        # A timestamp is written where all of them together are likelier than any text token.
        mass = float(weights[self._first_timestamp :].sum())
        if mass > float(weights[: self._first_timestamp].max()):
            weights[: self._first_timestamp] = 0
            total = mass
        token = int(weights.argmax())
        if temperature > 0:
            assert random is not None
            token = _sample(weights, temperature, random)
        return token, math.log(max(float(weights[token]), 1e-30) / total)

    def _restrict_timestamps(self, logits: Floats, written: Sequence[int]) -> None:
        first = self._first_timestamp
        if not written:
            logits[:first] = -np.inf
            logits[first + _MAX_INITIAL_TIMESTAMP + 1 :] = -np.inf
            return
        last_is_timestamp = written[-1] >= first
        if last_is_timestamp and (len(written) < 2 or written[-2] >= first):
            logits[first:] = -np.inf  # a segment has begun: text follows
            return
        if last_is_timestamp:
            logits[: self._end] = -np.inf  # a segment has ended: another one begins, or the text ends
        last = next((token for token in reversed(written) if token >= first), None)
        if last is not None:
            # Times never decrease, and no segment is empty.
            logits[first : last + (0 if last_is_timestamp else 1)] = -np.inf


def softmax_at(logits: Floats, token: int) -> float:
    """Return the probability of one token from float32[vocabulary]."""
    return float(np.exp(logits[token] - logits.max()) / np.exp(logits - logits.max()).sum())


def _sample(weights: npt.NDArray[np.float32], temperature: float, random: np.random.Generator) -> int:
    powers = np.power(weights.astype(np.float64), 1.0 / temperature)
    sums = powers.cumsum()
    return int(np.searchsorted(sums, random.random() * sums[-1], side="right"))
