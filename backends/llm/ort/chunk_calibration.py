"""How many prompt tokens run in about the time that running answers may be held."""

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from backends.llm.batching.model_runner import Logits
from backends.llm.engine import TokenIds

# A cancelled row must be free within 200 ms: the watcher takes up to 50, the rest is for a chunk and a step.
_TARGET_SECONDS = 0.1
_MIN_CHUNK, _MAX_CHUNK = 16, 512
_PROBE_TOKENS = 64


class MeasurableRunner(Protocol):
    """The part of a forward pass that is measured."""

    context_length: int

    def prefill(self, row: int, tokens: TokenIds, past: int) -> Logits:
        """Store tokens in a row."""

    def release(self, row: int) -> None:
        """Forget a row."""


@dataclass(frozen=True, slots=True)
class ChunkSizes:
    """A power of two at the beginning of a prompt, and halves of it further on, where attention costs more.

    Sizes depend on the place in the prompt alone, never on the load: the same prompt is cut, and so rounded, the same
    way whoever else is there. `double` is the number of tokens past which the cost of a token has doubled.
    """

    first_chunk: int
    cost_doubling_tokens: int

    def chunk_size(self, past: int) -> int:
        """The size of a chunk behind `past` tokens."""
        size = self.first_chunk
        while size > _MIN_CHUNK and size * (1 + past / self.cost_doubling_tokens) > self.first_chunk * 1.5:
            size //= 2
        return size


def calibrate_chunk_sizes(forward: MeasurableRunner) -> ChunkSizes:
    """Measure chunks at the beginning and far behind it (which also warms the model up), and leave row 0 as it was."""
    probe = min(_PROBE_TOKENS, forward.context_length // 2)
    near = _seconds(forward, probe, 0, runs=5)
    far_past = min(2048, forward.context_length - probe)
    far = _seconds(forward, probe, far_past, runs=3)
    forward.release(0)
    size = _MIN_CHUNK
    while size < _MAX_CHUNK and near / probe * size * 2 <= _TARGET_SECONDS * 1.25:
        size *= 2
    growth = max(far / near - 1, 0.05)
    # To a power of two as well, so that two starts on one machine seldom differ.
    double = 2 ** round(np.log2(max(far_past / growth, 64)))
    return ChunkSizes(size, int(double))


def _seconds(forward: MeasurableRunner, tokens: int, past: int, runs: int) -> float:
    """The best of some runs: others may be using the machine."""
    ids = np.arange(tokens, dtype=np.int64) % 7
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        forward.prefill(0, ids, past)
        times.append(time.perf_counter() - start)
    return min(times)
