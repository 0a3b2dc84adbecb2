"""Read whole answers with the parsers of tool calls."""

import json
from collections.abc import Callable, Iterable, Sequence

from gateway.prompting.tool_calls import (
    PARSERS,
    CallArguments,
    CallBegin,
    EitherCalls,
    ForcedCalls,
    NamedCall,
    Parser,
    Piece,
    Text,
)
from gateway.prompting.tool_calls.grammar import joined

NEW: dict[str, Callable[[], Parser]] = {
    **PARSERS,
    "forced": ForcedCalls,
    "named": lambda: NamedCall("f"),
    "either": lambda: EitherCalls(("f", "g")),
}
DISTINCT = ["hermes", "llama3_json", "mistral", "pythonic", "forced", "named", "either"]


def read(format: str, deltas: Iterable[str]) -> list[Piece]:
    parser = NEW[format]()
    pieces = [piece for delta in deltas for piece in parser.feed(delta)]
    return list(joined([*pieces, *parser.finish()]))


def call(number: int, name: str, arguments: str = "{}") -> list[Piece]:
    return [CallBegin(number, name), CallArguments(number, arguments)]


def content(pieces: Iterable[Piece]) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, Text))


def called(pieces: Sequence[Piece]) -> list[tuple[str, object]]:
    """Names and parsed arguments, in order; fails on arguments that are not JSON."""
    names = {piece.call: piece.name for piece in pieces if isinstance(piece, CallBegin)}
    assert list(names) == list(range(len(names)))
    texts = dict.fromkeys(names, "")
    for piece in pieces:
        if isinstance(piece, CallArguments):
            texts[piece.call] += piece.text
    return [(names[number], json.loads(text)) for number, text in texts.items()]
