"""Calls that a grammar enforced: the answer is JSON and nothing else, whatever format the model was trained on."""

from functools import partial

from gateway.prompting.tool_calls.call_object import call_array, stream_arguments
from gateway.prompting.tool_calls.grammar import GrammarParser
from gateway.prompting.tool_calls.pieces import CallBegin, Piece, Text
from gateway.prompting.tool_calls.prose import until
from gateway.prompting.tool_calls.source import Source, Steps


class ForcedCalls(GrammarParser):
    """The answer is an array `[{"name": …, "arguments": {…}}, …]`. What is not comes out as text."""

    def __init__(self) -> None:
        super().__init__(_array)


class NamedCall(GrammarParser):
    """The answer is the object of arguments for the function `name`. What does not begin as one comes out as text."""

    def __init__(self, name: str) -> None:
        super().__init__(partial(_arguments, name=name))


def _array(source: Source) -> Steps[Piece, None]:
    source.mark()
    yield from source.white()
    calls = 0
    if (yield from source.one("[")):
        calls = yield from call_array(source, 0, sure=True)
    if not calls:
        source.rewind()
    yield from until(source, "", Text, after_call=calls > 0)


def _arguments(source: Source, *, name: str) -> Steps[Piece, None]:
    source.mark()
    yield from source.white()
    begun = (yield from source.peek()) == "{"
    if begun:
        source.release()
        yield CallBegin(0, name)
        yield from stream_arguments(source, 0)
    else:
        source.rewind()
    yield from until(source, "", Text, after_call=begun)
