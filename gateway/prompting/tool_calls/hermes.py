"""Calls as Hermes and Qwen write them: `<tool_call>\\n{"name": …, "arguments": {…}}\\n</tool_call>`, with text around.

The format: https://github.com/NousResearch/Hermes-Function-Calling#prompt-format-for-function-calling, and the chat
template of https://huggingface.co/Qwen/Qwen2.5-7B-Instruct. vLLM reads it in `tool_parsers/hermes_tool_parser.py`. Both
take invalid JSON as text. vLLM ends a call at the first `</tool_call>`, this parser not at one inside a string.
"""

import re

from gateway.prompting.tool_calls.call_object import call_object
from gateway.prompting.tool_calls.pieces import Piece, Text
from gateway.prompting.tool_calls.plain_text import read_until, rewind_as_text
from gateway.prompting.tool_calls.text_buffer import Parse, TextBuffer

OPENING = "<tool_call>"
_CLOSING = "</tool_call>"
# Small models write one closing brace too many.
_LOOSE_ENDS = re.compile(r"[ \t\r\n}]*")


def hermes(source: TextBuffer) -> Parse[Piece, None]:
    """Parse an answer. A closing tag may be missing. An object between tags that is no call is text, with its tags."""
    calls = 0
    after_call = False
    while (yield from read_until(source, OPENING, Text, after_call=after_call)):
        source.mark()
        yield from source.skip_whitespace()
        yield from source.read_word(OPENING)
        yield from source.skip_whitespace()
        after_call = yield from call_object(source, calls, announced=True, closing=_CLOSING)
        if after_call:
            calls += 1
            yield from _close(source)
        else:
            yield from rewind_as_text(source, OPENING)


def _close(source: TextBuffer) -> Parse[Piece, None]:
    source.mark()
    yield from source.read_run(_LOOSE_ENDS)
    if (yield from source.read_word(_CLOSING)):
        source.release()
    else:
        source.rewind()
