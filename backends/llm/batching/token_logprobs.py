"""How likely the model held a token to be."""

import numpy as np

from backends.llm.batching.model_runner import Logits
from backends.llm.batching.sampler import top_k_indices
from backends.llm.engine import Logprob, Logprobs

# JSON has no infinity; the vLLM backend writes this number too.
_MIN_LOGPROB = -9999.0


def compute_logprobs(logits: Logits, token: int, count: int) -> Logprobs:
    """The log probability of `token` and of the `count` likeliest tokens, from a model's float32[vocabulary].

    `token` comes first. Equal logits rank by token id, so that an answer does not depend on how they were sorted.
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
    others = (entry(other, place) for place, other in enumerate(order, 1) if other != token)
    return (entry(token, rank), *others)
