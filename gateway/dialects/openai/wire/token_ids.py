"""Validation of token ids. A body may have a million of them, so valid ones are checked without a Python loop."""

from collections.abc import Sequence
from typing import Any


def first_invalid(ids: Sequence[Any]) -> int | None:
    """Return the index of the first value that is no integer from 0 to 2**31 - 1; None where all are."""
    if set(map(type, ids)) == {int} and min(ids) >= 0 and max(ids) < 2**31:
        return None
    wrong = (i for i, token in enumerate(ids) if type(token) is not int or not 0 <= token < 2**31)
    return next(wrong, None)
