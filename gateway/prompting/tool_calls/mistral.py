"""Calls as Mistral's models write them, in three generations.

`[TOOL_CALLS] [{"name": …, "arguments": {…}}, …]` (tokenizers v2 to v7), `[TOOL_CALLS]name[CALL_ID]id[ARGS]{…}` (v11)
and `[TOOL_CALLS]name[ARGS]{…}` (v13), each call of the latter two with its own marker:
https://github.com/mistralai/mistral-common/blob/main/src/mistral_common/tokens/tokenizers/instruct.py. vLLM reads them
in `tool_parsers/mistral_tool_parser.py`.

The markers are special tokens, which an engine may hide. An array of calls at the beginning of an answer is recognised
without them; `name{…}` after a hidden `[TOOL_CALLS]` cannot be distinguished from text.
"""

import re

from gateway.prompting.tool_calls.call_object import call_array, call_object, stream_arguments
from gateway.prompting.tool_calls.pieces import CallBegin, Piece, Text
from gateway.prompting.tool_calls.plain_text import read_until, rewind_as_text
from gateway.prompting.tool_calls.text_buffer import Parse, Read, TextBuffer

_MARKER = "[TOOL_CALLS]"
_NAME = re.compile(r"[\w.:/-]*")


def mistral(source: TextBuffer) -> Parse[Piece, None]:
    """Parse an answer: text and then calls, or calls alone."""
    calls = yield from _bare_array(source)
    after_call = calls > 0
    while (yield from read_until(source, _MARKER, Text, after_call=after_call)):
        source.mark()
        yield from source.skip_whitespace()
        yield from source.read_word(_MARKER)
        yield from source.skip_whitespace()
        read = yield from _calls(source, calls)
        after_call = read > calls
        calls = read
        if not after_call:
            yield from rewind_as_text(source, _MARKER)


def _bare_array(source: TextBuffer) -> Parse[Piece, int]:
    source.mark()
    yield from source.skip_whitespace()
    calls = 0
    if (yield from source.read_one("[")) and (yield from source.peek()) != _MARKER[1]:
        calls = yield from call_array(source, 0, announced=False)
    if not calls:
        source.rewind()
    return calls


def _calls(source: TextBuffer, call: int) -> Parse[Piece, int]:
    """Read the calls after a marker; return the number of the next call."""
    if (yield from source.read_one("[")):
        return (yield from call_array(source, call, announced=True))
    if (yield from source.peek()) == "{":
        return call + (yield from call_object(source, call, announced=True, closing=_MARKER))
    name: list[str] = []
    yield from source.read_run(_NAME, name)
    if not name or not (yield from _to_arguments(source)):
        return call
    source.release()
    yield CallBegin(call, "".join(name))
    yield from stream_arguments(source, call, closing=_MARKER)
    return call + 1


def _to_arguments(source: TextBuffer) -> Read[bool]:
    """Read the optional `[CALL_ID]id` and `[ARGS]`; false unless arguments follow."""
    yield from source.skip_whitespace()
    if (yield from source.read_one("[")):
        if (yield from source.peek()) == "C":
            if not (yield from source.read_word("CALL_ID]")):
                return False
            yield from source.read_run(_NAME)
            yield from source.skip_whitespace()
            if not (yield from source.read_one("[")):
                return (yield from source.peek()) == "{"
        if not (yield from source.read_word("ARGS]")):
            return False
        yield from source.skip_whitespace()
    return (yield from source.peek()) == "{"
