"""Log probabilities of a token and of the likeliest others, from the model's logits before any sampling option."""

import numpy as np

from backends.llm.batching.model_runner import Logits
from backends.llm.batching.sampler import top_k_indices
from backends.llm.engine import Logprob, Logprobs

_MIN_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON lacks. vLLM's Triton backend writes the same number."""


def compute_logprobs(logits: Logits, token: int, count: int) -> Logprobs:
    """Return the log probabilities of `token` and of the `count` likeliest tokens, from float32[vocabulary].

    `token` comes first, then the others by rank. Equal logits rank by token id, so the result does not depend on the
    sorting algorithm.
    """
    highest = logits.max()
    mass = float(np.exp(logits - highest).sum(dtype=np.float64))
    total = float(highest) + float(np.log(mass))

    def entry(token: int, rank: int) -> Logprob:
        return Logprob(token, max(float(logits[token]) - total, _MIN_LOGPROB), rank)

    above = logits > logits[token]
    rank = 1 + int(np.count_nonzero(above)) + int(np.count_nonzero(logits[:token] == logits[token]))
    if not count:
        return (entry(token, rank),)
    least = logits[top_k_indices(logits, min(count, len(logits)))].min()
    likeliest = np.flatnonzero(logits >= least)
    order = likeliest[np.argsort(-logits[likeliest], kind="stable")][:count].tolist()
    candidates = (entry(candidate, rank) for rank, candidate in enumerate(order, 1) if candidate != token)
    return (entry(token, rank), *candidates)
