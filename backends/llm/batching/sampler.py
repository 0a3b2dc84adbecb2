"""Choosing the next token of one sequence."""

import numpy as np
import numpy.typing as npt

from backends.llm.batching.model_runner import Logits
from backends.llm.batching.penalties import Penalties
from backends.llm.engine import TokenIds
from backends.llm.sampling_params import SamplingParams
from backends.serving.errors import EngineFailed

_BLOCK = 256
# Masses relative to the likeliest token, below which top_p looks only if the tokens above do not suffice.
_FLOORS = (1e-2, 1e-4, 1e-6)


class Sampler:
    """Bias, grammar, penalties, temperature, top_k, min_p and top_p, in this order, and one draw a token.

    Each sequence has its own generator and draws exactly once a token, so its text does not depend on its batch mates.
    """

    def __init__(
        self,
        sampling: SamplingParams,
        index: int,
        prompt: TokenIds,
        vocab_size: int,
        ends: frozenset[int] = frozenset(),
    ) -> None:
        """`index` is the number of the answer: it is added to the seed. `ends` may not come within `min_tokens`."""
        self._sampling = sampling
        self._penalties = Penalties(sampling, prompt, vocab_size) if Penalties.are_enabled(sampling) else None
        self._biased_tokens: TokenIds = np.array([token for token, _ in sampling.logit_bias], np.int64)
        self._biases = np.array([bias for _, bias in sampling.logit_bias], np.float32)
        self._min_tokens_left = sampling.min_tokens if ends else 0
        self._stop_token_ids: TokenIds = np.array(sorted(ends), np.int64)
        seed = None if sampling.seed is None else (sampling.seed + index) % 2**64
        self._random = None if sampling.temperature == 0 else np.random.default_rng(seed)

    def sample(self, logits: Logits, banned: npt.NDArray[np.bool_] | None = None) -> int:
        """Take float32[vocabulary] (which is overwritten where an option changes it), give a token id.

        `banned`, bool[vocabulary], are the tokens that a grammar forbids. Raises `EngineFailed` where the logits are
        not numbers.
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
        """Let the answer go on, unless a grammar leaves it nothing but to end."""
        before = logits[self._stop_token_ids]
        logits[self._stop_token_ids] = -np.inf
        if logits.max() == -np.inf:
            logits[self._stop_token_ids] = before

    def _draw(self, logits: Logits, highest: np.float32, random: np.random.Generator) -> int:
        options = self._sampling
        tokens: TokenIds | None = None
        if 0 < options.top_k < len(logits):
            tokens = top_k_indices(logits, options.top_k)
            logits = logits[tokens]
        # Masses relative to the likeliest token. The difference is taken first: a tiny temperature must not overflow.
        with np.errstate(over="ignore", under="ignore"):
            mass = np.exp((logits - highest) / np.float32(max(options.temperature, 1e-6)))
        if options.min_p > 0:
            mass[mass < options.min_p] = 0
        if options.top_p < 1:
            nucleus = _top_p_indices(mass, options.top_p)
            tokens, mass = (nucleus if tokens is None else tokens[nucleus]), mass[nucleus]
        place = _draw_index(mass, random.random())
        return place if tokens is None else int(tokens[place])


def top_k_indices(logits: Logits, count: int) -> TokenIds:
    """Places of the `count` largest of float32[v], in ascending order: so a draw does not hang on nearly equal logits.

    The count-th largest maximum of a block is a lower bound of what is sought, and few logits lie above it: looking for
    these first is ten times as fast as partitioning the whole vocabulary.
    """
    places = np.arange(len(logits))
    whole = len(logits) // _BLOCK * _BLOCK
    if count <= whole // _BLOCK:
        maxima = logits[:whole].reshape(-1, _BLOCK).max(axis=1)
        places = np.flatnonzero(logits >= np.partition(maxima, len(maxima) - count)[len(maxima) - count])
    if len(places) > count:
        places = places[np.argpartition(logits[places], len(places) - count)[len(places) - count :]]
    return np.sort(places)


def _top_p_indices(mass: Logits, top_p: float) -> TokenIds:
    """Places, in ascending order, of the fewest largest masses that reach `top_p` of the whole; float32[v] in.

    Only what lies above a floor is sorted, for the nucleus is nearly always a few hundred of many thousand tokens.
    """
    wanted = top_p * float(mass.sum(dtype=np.float64))
    for floor in _FLOORS:
        places = np.flatnonzero(mass >= floor)
        if float(mass[places].sum(dtype=np.float64)) >= wanted:
            break
    else:
        places = np.arange(len(mass))
    order = places[np.argsort(-mass[places], kind="stable")]
    reached = np.searchsorted(np.cumsum(mass[order], dtype=np.float64), wanted)
    return np.sort(order[: int(reached) + 1])


def _draw_index(mass: Logits, uniform: float) -> int:
    """The place at which the running sum of float32[v] passes `uniform` (0 ≤ uniform < 1) of the whole.

    Sums of blocks first: a running sum over the whole vocabulary would cost four times as much.
    """
    whole = len(mass) // _BLOCK * _BLOCK
    sums = mass[:whole].reshape(-1, _BLOCK).sum(axis=1, dtype=np.float64)
    sums = np.cumsum(np.append(sums, mass[whole:].sum(dtype=np.float64)))
    target = uniform * sums[-1]
    block = min(int(np.searchsorted(sums, target, side="right")), len(sums) - 1)
    rest = target - (sums[block - 1] if block else 0.0)
    inside = mass[block * _BLOCK : (block + 1) * _BLOCK]
    running = np.cumsum(inside, dtype=np.float64)
    place = int(np.searchsorted(running, rest, side="right"))
    if place >= len(inside):  # rounding: the last place that has any mass
        place = int(np.flatnonzero(inside)[-1])
    return block * _BLOCK + place
