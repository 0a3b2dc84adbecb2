"""Token ids, of which a body may hold a million: they are checked without a step of Python for each."""

from collections.abc import Sequence
from typing import Any


def first_invalid(ids: Sequence[Any]) -> int | None:
    """Return where the first is that is no token id, an integer from 0 to 2**31 - 1; None: all are."""
    if set(map(type, ids)) == {int} and min(ids) >= 0 and max(ids) < 2**31:
        return None
    wrong = (i for i, token in enumerate(ids) if type(token) is not int or not 0 <= token < 2**31)
    return next(wrong, None)
