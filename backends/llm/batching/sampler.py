"""Sampling: choose the next token of one sequence from its logits.

The sampler knows the request's sampling parameters and the tokens so far. It knows no text: stop strings are checked
in `sequence.py`.
"""

import numpy as np
import numpy.typing as npt

from backends.llm.batching.model_runner import Logits
from backends.llm.batching.penalties import Penalties
from backends.llm.engine import TokenIds
from backends.llm.sampling_params import SamplingParams
from backends.serving.errors import EngineFailed

_BLOCK = 256
"""Logits that are reduced together before the search looks at single ones."""
_FLOORS = (1e-2, 1e-4, 1e-6)
"""Probabilities relative to the likeliest token. `top_p` sorts only the tokens above the first floor that suffices."""


class Sampler:
    """Applies logit bias, grammar mask, min_tokens, penalties, temperature, top_k, min_p and top_p, in this order.

    Each sequence has a random generator of its own and draws exactly once per token, so its text does not depend on
    the rest of the batch.
    """

    def __init__(
        self,
        sampling: SamplingParams,
        index: int,
        prompt: TokenIds,
        vocab_size: int,
        stop_token_ids: frozenset[int] = frozenset(),
    ) -> None:
        """`index` is the number of the answer, which is added to the seed. `stop_token_ids` are masked for the first
        `min_tokens` tokens. `prompt` is int64[n], for the repetition penalty.
        """
        self._sampling = sampling
        self._penalties = Penalties(sampling, prompt, vocab_size) if Penalties.are_enabled(sampling) else None
        self._biased_tokens: TokenIds = np.array([token for token, _ in sampling.logit_bias], np.int64)
        self._biases = np.array([bias for _, bias in sampling.logit_bias], np.float32)
        self._min_tokens_left = sampling.min_tokens if stop_token_ids else 0
        self._stop_token_ids: TokenIds = np.array(sorted(stop_token_ids), np.int64)
        seed = None if sampling.seed is None else (sampling.seed + index) % 2**64
        self._random = None if sampling.temperature == 0 else np.random.default_rng(seed)

    def sample(self, logits: Logits, banned: npt.NDArray[np.bool_] | None = None) -> int:
        """Return a token id. `logits`, float32[vocabulary], may be overwritten.

        `banned`, bool[vocabulary], marks the tokens that a grammar forbids. Raises `EngineFailed` if the largest logit
        is NaN or infinite.
        """
        if len(self._biased_tokens):
            logits[self._biased_tokens] += self._biases
        if banned is not None:
            np.copyto(logits, -np.inf, where=banned)
        if self._min_tokens_left > 0:
            self._min_tokens_left -= 1
            self._mask_stop_tokens(logits)
        if self._penalties:
            self._penalties.apply(logits)
        best = int(logits.argmax())
        # argmax finds a NaN before any number.
        if not np.isfinite(logits[best]):
            raise EngineFailed("The model gave logits that are not numbers.")
        token = best if self._random is None else self._draw(logits, logits[best], self._random)
        if self._penalties:
            self._penalties.add_token(token)
        return token

    def _mask_stop_tokens(self, logits: Logits) -> None:
        """Mask the stop tokens, unless a grammar allows nothing else."""
        saved = logits[self._stop_token_ids]
        logits[self._stop_token_ids] = -np.inf
        if logits.max() == -np.inf:
            logits[self._stop_token_ids] = saved

    def _draw(self, logits: Logits, highest: np.float32, random: np.random.Generator) -> int:
        options = self._sampling
        tokens: TokenIds | None = None
        if 0 < options.top_k < len(logits):
            tokens = top_k_indices(logits, options.top_k)
            logits = logits[tokens]
        # Probabilities relative to the likeliest token. The difference comes first: a tiny temperature cannot overflow.
        with np.errstate(over="ignore", under="ignore"):
            mass = np.exp((logits - highest) / np.float32(max(options.temperature, 1e-6)))
        if options.min_p > 0:
            mass[mass < options.min_p] = 0
        if options.top_p < 1:
            nucleus = _top_p_indices(mass, options.top_p)
            tokens, mass = (nucleus if tokens is None else tokens[nucleus]), mass[nucleus]
        index = _draw_index(mass, random.random())
        return index if tokens is None else int(tokens[index])


def top_k_indices(logits: Logits, count: int) -> TokenIds:
    """Return the indices of the `count` largest of float32[v], in ascending order.

    The order makes a draw independent of rounding among nearly equal logits. The `count`-th largest block maximum is a
    lower bound of the result, and few logits lie above it: finding these first is ten times as fast as partitioning
    the whole vocabulary.
    """
    indices = np.arange(len(logits))
    whole = len(logits) // _BLOCK * _BLOCK
    if count <= whole // _BLOCK:
        maxima = logits[:whole].reshape(-1, _BLOCK).max(axis=1)
        indices = np.flatnonzero(logits >= np.partition(maxima, len(maxima) - count)[len(maxima) - count])
    if len(indices) > count:
        indices = indices[np.argpartition(logits[indices], len(indices) - count)[len(indices) - count :]]
    return np.sort(indices)


def _top_p_indices(mass: Logits, top_p: float) -> TokenIds:
    """Return the indices, in ascending order, of the fewest largest values of float32[v] that sum up to `top_p` of all.

    Only values above a floor are sorted: the nucleus is nearly always a few hundred of many thousand tokens.
    """
    wanted = top_p * float(mass.sum(dtype=np.float64))
    for floor in _FLOORS:
        indices = np.flatnonzero(mass >= floor)
        if float(mass[indices].sum(dtype=np.float64)) >= wanted:
            break
    else:
        indices = np.arange(len(mass))
    order = indices[np.argsort(-mass[indices], kind="stable")]
    reached = np.searchsorted(np.cumsum(mass[order], dtype=np.float64), wanted)
    return np.sort(order[: int(reached) + 1])


def _draw_index(mass: Logits, uniform: float) -> int:
    """Return the index at which the running sum of float32[v] passes `uniform` (0 ≤ uniform < 1) of the total.

    Blocks are summed first: a running sum over the whole vocabulary would cost four times as much.
    """
    whole = len(mass) // _BLOCK * _BLOCK
    sums = mass[:whole].reshape(-1, _BLOCK).sum(axis=1, dtype=np.float64)
    sums = np.cumsum(np.append(sums, mass[whole:].sum(dtype=np.float64)))
    target = uniform * sums[-1]
    block = min(int(np.searchsorted(sums, target, side="right")), len(sums) - 1)
    rest = target - (sums[block - 1] if block else 0.0)
    inside = mass[block * _BLOCK : (block + 1) * _BLOCK]
    running = np.cumsum(inside, dtype=np.float64)
    index = int(np.searchsorted(running, rest, side="right"))
    if index >= len(inside):  # after rounding: the last index with any mass
        index = int(np.flatnonzero(inside)[-1])
    return block * _BLOCK + index
