"""Runs a grammar over an answer delta by delta."""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import TypeAlias

from gateway.prompting.tool_calls.pieces import CallArguments, CallBegin, Piece, Text
from gateway.prompting.tool_calls.text_buffer import Parse, TextBuffer

Grammar: TypeAlias = Callable[[TextBuffer], Parse[Piece, None]]


class GrammarParser:
    """The `ToolCallParser` of a grammar."""

    def __init__(self, grammar: Grammar) -> None:
        self._source = TextBuffer()
        self._steps = grammar(self._source)

    def feed(self, text: str) -> list[Piece]:
        """Take the next delta; return what is certain now."""
        if not text:
            return []
        self._source.push(text)
        return list(merge_pieces(self._advance()))

    def finish(self) -> list[Piece]:
        """Return what was held back, at the end of the answer."""
        self._source.ended = True
        return list(merge_pieces(self._advance()))

    def _advance(self) -> Iterator[Piece]:
        for piece in self._steps:
            if piece is None:
                return
            yield piece


def merge_pieces(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Merge adjacent pieces of text, and those of one call's arguments."""
    for (kind, call), group in groupby(pieces, key=lambda piece: (type(piece), getattr(piece, "call", None))):
        if kind is CallBegin:
            yield from group
        else:
            text = "".join(piece.text for piece in group if not isinstance(piece, CallBegin))
            yield Text(text) if call is None else CallArguments(call, text)
