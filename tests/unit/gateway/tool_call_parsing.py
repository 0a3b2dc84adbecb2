"""Read whole answers with the parsers of tool calls."""

import json
from collections.abc import Callable, Iterable, Sequence

from gateway.prompting.tool_calls import (
    PARSERS,
    CallArguments,
    CallBegin,
    CallsOrTextParser,
    NamedCallParser,
    Piece,
    RequiredCallsParser,
    Text,
    ToolCallParser,
)
from gateway.prompting.tool_calls.grammar import merge_pieces

PARSER_FACTORIES: dict[str, Callable[[], ToolCallParser]] = {
    **PARSERS,
    "forced": RequiredCallsParser,
    "named": lambda: NamedCallParser("f"),
    "either": lambda: CallsOrTextParser(("f", "g")),
}
DISTINCT = ["hermes", "llama3_json", "mistral", "pythonic", "forced", "named", "either"]


def parse(format: str, deltas: Iterable[str]) -> list[Piece]:
    parser = PARSER_FACTORIES[format]()
    pieces = [piece for delta in deltas for piece in parser.feed(delta)]
    return list(merge_pieces([*pieces, *parser.finish()]))


def call(number: int, name: str, arguments: str = "{}") -> list[Piece]:
    return [CallBegin(number, name), CallArguments(number, arguments)]


def text_of(pieces: Iterable[Piece]) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, Text))


def tool_calls_of(pieces: Sequence[Piece]) -> list[tuple[str, object]]:
    """Names and parsed arguments, in order; fails on arguments that are not JSON."""
    names = {piece.call: piece.name for piece in pieces if isinstance(piece, CallBegin)}
    assert list(names) == list(range(len(names)))
    texts = dict.fromkeys(names, "")
    for piece in pieces:
        if isinstance(piece, CallArguments):
            texts[piece.call] += piece.text
    return [(names[number], json.loads(text)) for number, text in texts.items()]
