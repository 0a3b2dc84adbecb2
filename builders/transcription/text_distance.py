"""Distances of texts and of distributions."""

from typing import Any

import numpy as np
import numpy.typing as npt


def word_errors(reference: str, text: str) -> tuple[int, int]:
    """Return the words to insert, delete or replace to make `reference` of `text`, and the words of `reference`.

    Case and punctuation do not count.
    """
    wanted, found = _words(reference), _words(text)
    costs = np.arange(len(found) + 1)
    for number, word in enumerate(wanted, 1):
        following = np.empty_like(costs)
        following[0] = number
        for place, other in enumerate(found, 1):
            following[place] = min(costs[place] + 1, following[place - 1] + 1, costs[place - 1] + (word != other))
        costs = following
    return int(costs[-1]), len(wanted)


def kullback_leibler(theirs: npt.NDArray[Any], ours: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the divergence, in nats, of the distributions of the logits `ours` [n, size] from those of `theirs`."""
    logs = [_log_softmax(np.asarray(logits, np.float64)) for logits in (theirs, ours)]
    divergence: npt.NDArray[np.float64] = (np.exp(logs[0]) * (logs[0] - logs[1])).sum(-1)
    return np.maximum(divergence, 0)


def _log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max(-1, keepdims=True)
    found: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found


def _words(text: str) -> list[str]:
    kept = "".join(character if character.isalnum() else " " for character in text.lower().replace("'", ""))
    return kept.split()
