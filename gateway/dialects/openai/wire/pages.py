"""Pages of lists, in the format of OpenAI's."""

from collections.abc import Sequence
from typing import Any


def render_page(found: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    """Return a page with the first `limit` objects of `found`; another page follows if there are more.

    Each object has an `id`. That of the last one asks for the following page.
    """
    data = list(found[:limit])
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(found) > limit,
    }
