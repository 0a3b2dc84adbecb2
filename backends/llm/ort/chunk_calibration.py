"""Chunk sizes for prefill: measure at load how many prompt tokens run in the time that a prefill may delay decoding."""

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from backends.llm.batching.model_runner import Logits
from backends.llm.engine import TokenIds

_TARGET_SECONDS = 0.1
"""Seconds that one chunk may take. A cancelled request must stop within 200 ms: the cancellation watcher takes up to
50, and the rest is for a chunk and a decode step."""
_MIN_CHUNK, _MAX_CHUNK = 16, 512
_PROBE_TOKENS = 64


class MeasurableRunner(Protocol):
    """The part of a `ModelRunner` that the calibration uses."""

    context_length: int

    def prefill(self, slot: int, tokens: TokenIds, past: int) -> Logits:
        """Run int64[k] tokens after the `past` tokens of a slot."""

    def release(self, slot: int) -> None:
        """Empty a slot."""


@dataclass(frozen=True, slots=True)
class ChunkSizes:
    """`first_chunk` tokens, a power of two, at the start of a prompt, then halves of it, because attention costs more.

    Sizes depend on the position in the prompt alone, never on the load: so the same prompt is always cut, and rounded,
    the same way. `cost_doubling_tokens` is the number of past tokens after which the cost of a token has doubled.
    """

    first_chunk: int
    cost_doubling_tokens: int

    def chunk_size(self, past: int) -> int:
        """Return the size of the chunk after `past` tokens."""
        chunk_size = self.first_chunk
        while chunk_size > _MIN_CHUNK and chunk_size * (1 + past / self.cost_doubling_tokens) > self.first_chunk * 1.5:
            chunk_size //= 2
        return chunk_size


def calibrate_chunk_sizes(runner: MeasurableRunner) -> ChunkSizes:
    """Time chunks at the start of a prompt and far behind it, which also warms the model up. Leaves slot 0 empty."""
    probe = min(_PROBE_TOKENS, runner.context_length // 2)
    near = _seconds(runner, probe, 0, runs=5)
    far_past = min(2048, runner.context_length - probe)
    far = _seconds(runner, probe, far_past, runs=3)
    runner.release(0)
    chunk_size = _MIN_CHUNK
    while chunk_size < _MAX_CHUNK and near / probe * chunk_size * 2 <= _TARGET_SECONDS * 1.25:
        chunk_size *= 2
    growth = max(far / near - 1, 0.05)
    # Rounded to a power of two as well, so that two starts on one machine seldom differ.
    cost_doubling_tokens = 2 ** round(np.log2(max(far_past / growth, 64)))
    return ChunkSizes(chunk_size, int(cost_doubling_tokens))


def _seconds(runner: MeasurableRunner, tokens: int, past: int, runs: int) -> float:
    """Return the shortest time of several runs: other processes may be using the machine."""
    ids = np.arange(tokens, dtype=np.int64) % 7
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        runner.prefill(0, ids, past)
        times.append(time.perf_counter() - start)
    return min(times)
