"""Calls as Llama 3.2 and 4 write them, in Python: `[get_weather(city="Paris", days=3), other(x=[1, 2])]`.

The format: https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_2/#-zero-shot-function-calling. Llama 4 may
put it between `<|python_start|>` and `<|python_end|>`. As in vLLM's `tool_parsers/pythonic_tool_parser.py` the whole
answer must be such a list. Arguments are keywords with literals as values. They come when the answer is complete: only
then is Python distinguishable from text that looks like it, a link in Markdown for example. Names are Python's: a
function with a hyphen in its name cannot be written in this format.
"""

import ast
import json
import re
import warnings

from gateway.prompting.tool_calls.pieces import CallArguments, CallBegin, Piece, Text
from gateway.prompting.tool_calls.plain_text import read_until
from gateway.prompting.tool_calls.text_buffer import Parse, Read, TextBuffer

_NAME = re.compile(r"[\w.]*")
# The characters between brackets and strings in calls with literals; with others it is no list of calls.
_PLAIN_CODE = re.compile(r"[\w \t\r\n.,:=+-]*")
_CLOSERS = {"(": ")", "[": "]", "{": "}"}
_MAX_DEPTH = 64
_JSON_NAMES = {"true": True, "false": False, "null": None}


def pythonic(source: TextBuffer) -> Parse[Piece, None]:
    """Read an answer: a list of calls, or text."""
    source.mark()
    parts: list[str] = []
    calls = _parse_calls("".join(parts)) if (yield from _list(source, parts)) else []
    if not calls:
        source.rewind()
        yield from read_until(source, "", Text)
    for number, (name, arguments) in enumerate(calls):
        yield CallBegin(number, name)
        yield CallArguments(number, arguments)


def _list(source: TextBuffer, parts: list[str]) -> Read[bool]:
    """Read as much as looks like a list of calls, and append it to `parts`; false where the answer is no such list."""
    yield from source.skip_whitespace()
    if (yield from source.peek()) == "<":
        if not (yield from source.read_word("<|python_")):
            return False
        word = "start|>" if (yield from source.peek()) == "s" else "tag|>"
        if not (yield from source.read_word(word)):
            return False
        yield from source.skip_whitespace()
    if not (yield from source.read_one("[", parts)):
        return False
    yield from source.skip_whitespace(parts)
    if not (yield from source.read_run(_NAME, parts)):
        return False
    yield from source.skip_whitespace(parts)
    if (yield from source.peek()) != "(" or not (yield from _read_list_body(source, parts)):
        return False
    yield from source.skip_whitespace()
    if (yield from source.has_more()) and not (yield from source.read_word("<|python_end|>")):
        return False
    yield from source.skip_whitespace()
    return not (yield from source.has_more())


def _read_list_body(source: TextBuffer, parts: list[str]) -> Read[bool]:
    """Read up to the bracket that closes the list."""
    closers = ["]"]
    while closers:
        yield from source.read_run(_PLAIN_CODE, parts)
        first = yield from source.peek()
        if first in _CLOSERS and len(closers) < _MAX_DEPTH:
            closers.append(_CLOSERS[first])
        elif first and first == closers[-1]:
            closers.pop()
        elif first and first in "\"'":
            if not (yield from _string(source, parts, first)):
                return False
            continue
        else:
            return False
        yield from source.read_one(first, parts)
    return True


_UNESCAPED = {'"': re.compile(r'[^"\\]*'), "'": re.compile(r"[^'\\]*")}


def _string(source: TextBuffer, parts: list[str], quote: str) -> Read[bool]:
    yield from source.read_one(quote, parts)
    while True:
        yield from source.read_run(_UNESCAPED[quote], parts)
        if (yield from source.read_one(quote, parts)):
            return True
        if not (yield from source.read_one("\\", parts)):
            return False
        yield from source.read_one((yield from source.peek()), parts)


def _parse_calls(text: str) -> list[tuple[str, str]]:
    """Return each call's name and its arguments as JSON; nothing if `text` is not a list of calls."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know
            tree = ast.parse(text, mode="eval").body
        if not isinstance(tree, ast.List):
            return []
        return [_call(node) for node in tree.elts]
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return []


def _call(node: ast.expr) -> tuple[str, str]:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("not a call with keywords")
    arguments = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("keywords in a dictionary")
        arguments[keyword.arg] = _literal(keyword.value)
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can only carry escaped
        text = json.dumps(arguments, allow_nan=False)
    return _name(node.func), text


def _name(node: ast.expr) -> str:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise ValueError("not a name")
    return ".".join([node.id, *reversed(names)])


def _literal(node: ast.expr) -> object:
    match node:
        case ast.Constant(value=str() | bool() | int() | float() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Name(id=name) if name in _JSON_NAMES:
            return _JSON_NAMES[name]
        case ast.List(elts=values) | ast.Tuple(elts=values):
            return [_literal(value) for value in values]
        case ast.Dict(keys=keys, values=values) if all(keys):
            return {_literal(key): _literal(value) for key, value in zip(keys, values, strict=True) if key is not None}
    raise ValueError("not a literal")
