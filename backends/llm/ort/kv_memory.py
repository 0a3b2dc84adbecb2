"""The division of the KV cache's memory: how many tokens a slot holds, and how many slots there are."""

import logging

_MIN_CONTEXT_TOKENS = 128
"""The shortest context that is worth serving."""

_log = logging.getLogger(__name__)


def fit_context(memory: int, page_bytes: int, tokens_per_page: int, context_length: int) -> int:
    """Return `context_length`, or the tokens of one slot that fit into `memory` bytes if they are less.

    A page of `tokens_per_page` tokens takes `page_bytes`. Raises `ValueError` if not even 128 tokens fit.
    """
    fitting = memory // page_bytes * tokens_per_page
    if fitting < min(context_length, _MIN_CONTEXT_TOKENS):
        least = -(-_MIN_CONTEXT_TOKENS // tokens_per_page) * page_bytes / 2**20
        raise ValueError(
            f"The KV cache may take {max(0, memory) / 2**20:.0f} MB; {_MIN_CONTEXT_TOKENS} tokens take {least:.0f}."
        )
    if fitting < context_length:
        _log.warning("The KV cache may take %.0f MB: the context is %d tokens.", memory / 2**20, fitting)
    return min(context_length, fitting)


def fit_slots(memory: int, slot_bytes: int, max_rows: int, context_length: int) -> int:
    """Return `max_rows`, or the slots of `slot_bytes` that fit into `memory` bytes if they are fewer."""
    slots = min(max_rows, memory // slot_bytes)
    if slots < max_rows:
        _log.warning(
            "The KV cache may take %.0f MB: %d sequences of %d tokens run side by side, not %d. For more, set a "
            "smaller context_length.",
            memory / 2**20,
            slots,
            context_length,
            max_rows,
        )
    return slots
