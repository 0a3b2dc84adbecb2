"""Separates tool calls from text, in the format that a model was trained on."""

from collections.abc import Callable, Mapping
from functools import partial

from gateway.prompting.tool_calls.constrained import CallsOrTextParser, NamedCallParser, RequiredCallsParser
from gateway.prompting.tool_calls.grammar import GrammarParser
from gateway.prompting.tool_calls.hermes import hermes
from gateway.prompting.tool_calls.llama3_json import llama3_json
from gateway.prompting.tool_calls.mistral import mistral
from gateway.prompting.tool_calls.pieces import CallArguments, CallBegin, Piece, Text, ToolCallParser
from gateway.prompting.tool_calls.pythonic import pythonic

__all__ = [
    "PARSERS",
    "CallArguments",
    "CallBegin",
    "CallsOrTextParser",
    "NamedCallParser",
    "Piece",
    "RequiredCallsParser",
    "Text",
    "ToolCallParser",
]

# By the value of a model's parameter `tool_call_parser`.
PARSERS: Mapping[str, Callable[[], ToolCallParser]] = {
    "hermes": partial(GrammarParser, hermes),
    "qwen": partial(GrammarParser, hermes),
    "qwen25": partial(GrammarParser, hermes),
    "llama3_json": partial(GrammarParser, llama3_json),
    "mistral": partial(GrammarParser, mistral),
    "pythonic": partial(GrammarParser, pythonic),
}
