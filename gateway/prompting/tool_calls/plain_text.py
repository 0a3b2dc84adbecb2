"""Reads text outside tool calls."""

from collections.abc import Callable, Generator

from gateway.prompting.tool_calls.pieces import Piece, Text
from gateway.prompting.tool_calls.text_buffer import Output, Parse, TextBuffer

# Characters of white space before a marker that belong to it. The bound keeps long runs from being held back and read
# again.
_MAX_GAP = 64
_WHITE = " \t\r\n"


def read_until(
    source: TextBuffer, marker: str, piece: Callable[[str], Output], *, after_call: bool = False
) -> Parse[Output, bool]:
    """Yield the text up to `marker` and the white space before it, and stop there; false where the marker never comes.

    An empty marker never comes. `after_call`: text that is white space to the end is dropped.
    """
    while True:
        found = source.text.find(marker, source.at) if marker else -1
        end = found if found >= 0 else len(source.text)
        if found < 0 and not source.ended:
            end -= _marker_overlap(source.text, source.at, marker)
        if (found >= 0 or not source.ended) and (marker or after_call):
            end = _strip_end(source.text, source.at, end)
        if found < 0 and source.ended and after_call and _strip_end(source.text, source.at, end) == source.at:
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


def rewind_as_text(source: TextBuffer, marker: str) -> Generator[Piece, None, None]:
    """Go back to the marked position, and yield the text from there to the end of `marker`, which marked no call."""
    source.rewind()
    end = source.text.index(marker, source.at) + len(marker)
    yield Text(source.text[source.at : end])
    source.at = end


def _marker_overlap(text: str, start: int, marker: str) -> int:
    """Return how many characters at the end of `text[start:]` may be the beginning of `marker`."""
    for length in range(min(len(marker) - 1, len(text) - start), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0


def _strip_end(text: str, start: int, end: int) -> int:
    start = max(start, end - _MAX_GAP)
    while end > start and text[end - 1] in _WHITE:
        end -= 1
    return end
