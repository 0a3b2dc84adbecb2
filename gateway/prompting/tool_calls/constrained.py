"""Calls that a grammar enforced: the answer is JSON and nothing else, whatever format the model was trained on."""

import re
from collections.abc import Collection
from functools import partial

from gateway.prompting.tool_calls.call_object import call_array, call_object, stream_arguments
from gateway.prompting.tool_calls.grammar import GrammarParser
from gateway.prompting.tool_calls.hermes import OPENING, hermes
from gateway.prompting.tool_calls.pieces import CallBegin, Piece, Text
from gateway.prompting.tool_calls.plain_text import read_until
from gateway.prompting.tool_calls.text_buffer import Parse, Read, TextBuffer

_SEPARATORS = re.compile(r"[ \t\r\n;]*")


class RequiredCallsParser(GrammarParser):
    """Parses an answer that is an array `[{"name": …, "arguments": {…}}, …]`; anything else is text."""

    def __init__(self) -> None:
        super().__init__(_array)


class NamedCallParser(GrammarParser):
    """Parses an answer that is the arguments of the function `name`; one that starts otherwise is text."""

    def __init__(self, name: str) -> None:
        super().__init__(partial(_arguments, name=name))


class CallsOrTextParser(GrammarParser):
    """Parses an answer that is calls of the functions `names`, or text.

    Calls begin with one of the characters of `starts`: `<` of tags, `[` of an array, `{` of objects.
    """

    def __init__(self, names: Collection[str], starts: str = "<[{") -> None:
        super().__init__(partial(_calls_or_text, names=names, starts=starts))


def _calls_or_text(source: TextBuffer, *, names: Collection[str], starts: str) -> Parse[Piece, None]:
    calls = 0
    first = yield from source.peek()
    if first not in starts:
        first = ""
    if first == "<" and (yield from _is_tagged(source)):
        yield from hermes(source)
        return
    if first == "{":
        calls = yield from _objects(source, names)
    elif first == "[":
        source.mark()
        yield from source.read_one("[")
        calls = yield from call_array(source, 0, announced=False, names=names)
        if not calls:
            source.rewind()
    yield from read_until(source, "", Text, after_call=calls > 0)


def _is_tagged(source: TextBuffer) -> Read[bool]:
    source.mark()
    tagged = yield from source.read_word(OPENING)
    source.rewind()
    return tagged


def _objects(source: TextBuffer, names: Collection[str]) -> Parse[Piece, int]:
    calls = 0
    while True:
        source.mark()
        if calls:
            yield from source.read_run(_SEPARATORS)
        if not (yield from call_object(source, calls, announced=False, names=names)):
            source.rewind()
            return calls
        calls += 1


def _array(source: TextBuffer) -> Parse[Piece, None]:
    source.mark()
    yield from source.skip_whitespace()
    calls = 0
    if (yield from source.read_one("[")):
        calls = yield from call_array(source, 0, announced=True)
    if not calls:
        source.rewind()
    yield from read_until(source, "", Text, after_call=calls > 0)


def _arguments(source: TextBuffer, *, name: str) -> Parse[Piece, None]:
    source.mark()
    yield from source.skip_whitespace()
    begun = (yield from source.peek()) == "{"
    if begun:
        source.release()
        yield CallBegin(0, name)
        yield from stream_arguments(source, 0)
    else:
        source.rewind()
    yield from read_until(source, "", Text, after_call=begun)
