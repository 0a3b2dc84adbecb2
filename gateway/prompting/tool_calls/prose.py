"""Pass on what is no call."""

from collections.abc import Callable, Generator

from gateway.prompting.tool_calls.pieces import Piece, Text
from gateway.prompting.tool_calls.source import P, Source, Steps

# So much white space in front of a marker belongs to it. A bound keeps long runs of it from being held and read again.
_GAP = 64
_WHITE = " \t\r\n"


def until(source: Source, marker: str, piece: Callable[[str], P], *, after_call: bool = False) -> Steps[P, bool]:
    """Yield what stands before `marker` and the white space in front of it, and stop there; false if it never comes.

    An empty marker never comes. White space `after_call` that is all there is to the end is dropped.
    """
    while True:
        found = source.text.find(marker, source.at) if marker else -1
        end = found if found >= 0 else len(source.text)
        if found < 0 and not source.ended:
            end -= _begun(source.text, source.at, marker)
        if (found >= 0 or not source.ended) and (marker or after_call):
            end = _before_white(source.text, source.at, end)
        if found < 0 and source.ended and after_call and _before_white(source.text, source.at, end) == source.at:
            source.at = end
            return False
        if end > source.at:
            yield piece(source.text[source.at : end])
            after_call = False
            source.at = end
        if found >= 0:
            return True
        if source.ended:
            return False
        yield None


def give_back(source: Source, marker: str) -> Generator[Piece, None, None]:
    """Go back to the mark; what stands there up to `marker` and `marker` itself turned out to be text."""
    source.rewind()
    end = source.text.index(marker, source.at) + len(marker)
    yield Text(source.text[source.at : end])
    source.at = end


def _begun(text: str, start: int, marker: str) -> int:
    """Return how many characters at the end of `text[start:]` may be the beginning of `marker`."""
    for length in range(min(len(marker) - 1, len(text) - start), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0


def _before_white(text: str, start: int, end: int) -> int:
    start = max(start, end - _GAP)
    while end > start and text[end - 1] in _WHITE:
        end -= 1
    return end
