"""Tell tool calls from text, in the format that a model was trained to write them."""

from collections.abc import Callable, Mapping
from functools import partial

from gateway.prompting.tool_calls.forced import EitherCalls, ForcedCalls, NamedCall
from gateway.prompting.tool_calls.grammar import GrammarParser
from gateway.prompting.tool_calls.hermes import hermes
from gateway.prompting.tool_calls.llama3_json import llama3_json
from gateway.prompting.tool_calls.mistral import mistral
from gateway.prompting.tool_calls.pieces import CallArguments, CallBegin, Parser, Piece, Text
from gateway.prompting.tool_calls.pythonic import pythonic

__all__ = [
    "PARSERS",
    "CallArguments",
    "CallBegin",
    "EitherCalls",
    "ForcedCalls",
    "NamedCall",
    "Parser",
    "Piece",
    "Text",
]

# By the value of a model's parameter `tool_call_parser`.
PARSERS: Mapping[str, Callable[[], Parser]] = {
    "hermes": partial(GrammarParser, hermes),
    "qwen": partial(GrammarParser, hermes),
    "qwen25": partial(GrammarParser, hermes),
    "llama3_json": partial(GrammarParser, llama3_json),
    "mistral": partial(GrammarParser, mistral),
    "pythonic": partial(GrammarParser, pythonic),
}
