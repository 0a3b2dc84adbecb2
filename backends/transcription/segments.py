"""The segments of a window: its tokens cut at the timestamps among them."""

from collections.abc import Sequence
from dataclasses import dataclass

from backends.transcription.tokens import SECONDS_PER_TIMESTAMP


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """The tokens `first` to `last` - 1 of a window, timestamps included, and their times in the window, in seconds."""

    first: int
    last: int
    start: float
    end: float


def split_at_timestamps(tokens: Sequence[int], first_timestamp: int, seconds: float) -> list[TokenSpan]:
    """Return the spans of `tokens` that hold text; timestamps are the ids from `first_timestamp` on.

    A span begins at the timestamp before its text and ends at the one after it. Where one is missing, the end of the
    span before it and the end of the window, after `seconds`, take its place.
    """
    spans: list[TokenSpan] = []
    first, start, has_text = 0, 0.0, False
    for number, token in enumerate(tokens):
        if token < first_timestamp:
            has_text = True
            continue
        time = min((token - first_timestamp) * SECONDS_PER_TIMESTAMP, seconds)
        if has_text:
            spans.append(TokenSpan(first, number + 1, start, max(start, time)))
            first, start, has_text = number + 1, time, False
        else:
            first, start = number, time
    if has_text:
        spans.append(TokenSpan(first, len(tokens), start, max(start, seconds)))
    return spans
