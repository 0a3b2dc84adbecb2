"""The choice of the texts that share a batch."""

from collections.abc import Sequence

_FREE_PADDING_TOKENS = 16
"""Tokens of padding that cost no more than a batch of their own would."""


def choose_batch_window(
    lengths: Sequence[int], anchor: int, budget: int, max_padding: float, max_texts: int = 0
) -> tuple[int, int]:
    """Return the bounds of a slice of `lengths` that contains the index `anchor`. `lengths` are token counts, sorted.

    The slice grows towards the side that needs less padding, as long as the padded batch has at most `budget` tokens
    and at most the share `max_padding` of them is padding, and no more than `max_texts` texts; 0 means any number. A
    text that is longer than the budget runs alone.
    """
    start, stop, tokens = anchor, anchor + 1, lengths[anchor]
    while (start > 0 or stop < len(lengths)) and stop - start != max_texts:
        rows = stop - start + 1
        sides = []
        if start > 0:
            padded = rows * lengths[stop - 1]
            sides.append((padded - tokens - lengths[start - 1], padded, start - 1))
        if stop < len(lengths):
            padded = rows * lengths[stop]
            sides.append((padded - tokens - lengths[stop], padded, stop))
        padding, padded, chosen = min(sides)
        if padded > budget or padding > max(_FREE_PADDING_TOKENS, max_padding * padded):
            break
        tokens += lengths[chosen]
        start, stop = min(start, chosen), max(stop, chosen + 1)
    return start, stop
