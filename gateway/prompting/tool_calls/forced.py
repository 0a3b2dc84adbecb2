"""Calls that a grammar enforced: the answer is JSON and nothing else, whatever format the model was trained on."""

import re
from collections.abc import Collection
from functools import partial

from gateway.prompting.tool_calls.call_object import call_array, call_object, stream_arguments
from gateway.prompting.tool_calls.grammar import GrammarParser
from gateway.prompting.tool_calls.hermes import OPENING, hermes
from gateway.prompting.tool_calls.pieces import CallBegin, Piece, Text
from gateway.prompting.tool_calls.prose import until
from gateway.prompting.tool_calls.source import Reading, Source, Steps

_SEPARATORS = re.compile(r"[ \t\r\n;]*")


class ForcedCalls(GrammarParser):
    """The answer is an array `[{"name": …, "arguments": {…}}, …]`. What is not comes out as text."""

    def __init__(self) -> None:
        super().__init__(_array)


class NamedCall(GrammarParser):
    """The answer is the object of arguments for the function `name`. What does not begin as one comes out as text."""

    def __init__(self, name: str) -> None:
        super().__init__(partial(_arguments, name=name))


class EitherCalls(GrammarParser):
    """The answer is calls of functions of these `names`, or text.

    Calls begin with any of the characters of `begins`: `<` in tags, `[` in an array, `{` as objects.
    """

    def __init__(self, names: Collection[str], begins: str = "<[{") -> None:
        super().__init__(partial(_either, names=names, begins=begins))


def _either(source: Source, *, names: Collection[str], begins: str) -> Steps[Piece, None]:
    calls = 0
    first = yield from source.peek()
    if first not in begins:
        first = ""
    if first == "<" and (yield from _is_tagged(source)):
        yield from hermes(source)
        return
    if first == "{":
        calls = yield from _objects(source, names)
    elif first == "[":
        source.mark()
        yield from source.one("[")
        calls = yield from call_array(source, 0, sure=False, names=names)
        if not calls:
            source.rewind()
    yield from until(source, "", Text, after_call=calls > 0)


def _is_tagged(source: Source) -> Reading[bool]:
    source.mark()
    tagged = yield from source.word(OPENING)
    source.rewind()
    return tagged


def _objects(source: Source, names: Collection[str]) -> Steps[Piece, int]:
    calls = 0
    while True:
        source.mark()
        if calls:
            yield from source.run(_SEPARATORS)
        if not (yield from call_object(source, calls, sure=False, names=names)):
            source.rewind()
            return calls
        calls += 1


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
