"""Calls as Llama 3.1 and later write them: the whole answer is `{"name": …, "parameters": {…}}`.

The format: https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1/#json-based-tool-calling. A tag,
`<|python_tag|>`, may precede a call, but engines that hide special tokens hide it. Several calls are separated by
`;`, white space or nothing, as in vLLM's `tool_parsers/llama_tool_parser.py`.
"""

import re

from gateway.prompting.tool_calls.call_object import call_object
from gateway.prompting.tool_calls.pieces import Piece, Text
from gateway.prompting.tool_calls.plain_text import read_until, rewind_as_text
from gateway.prompting.tool_calls.text_buffer import WHITESPACE, Parse, TextBuffer

_TAG = "<|python_tag|>"
_SEPARATORS = re.compile(r"[ \t\r\n;]*")


def llama3_json(source: TextBuffer) -> Parse[Piece, None]:
    """Parse an answer. Without the tag, a call is at the beginning or after another call; anything else is text."""
    calls = 0
    in_text = False
    while not in_text or (yield from read_until(source, _TAG, Text)):
        source.mark()
        yield from source.read_run(_SEPARATORS if calls and not in_text else WHITESPACE)
        if calls and not in_text and not (yield from source.has_more()):
            return
        tagged = (yield from source.peek()) == _TAG[0] and (yield from source.read_word(_TAG))
        if tagged:
            yield from source.skip_whitespace()
        if (yield from call_object(source, calls, announced=tagged)):
            calls += 1
            in_text = False
            continue
        in_text = True
        if tagged:
            yield from rewind_as_text(source, _TAG)
        else:
            source.rewind()
