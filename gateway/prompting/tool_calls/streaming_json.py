"""Parses JSON while it streams: https://www.rfc-editor.org/rfc/rfc8259

Strict with one exception for models: a raw control character in a string, mostly a line break, is accepted and comes
out escaped. Nesting costs memory, not stack. Where a reader returns false, the text that it read has been appended to
`parts`, and the first character that does not fit is the next to be read.
"""

import json
import re

from gateway.prompting.tool_calls.text_buffer import Read, TextBuffer

_UNESCAPED = re.compile(r'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(r"[0-9]*")
_WORDS = {"t": "true", "f": "false", "n": "null"}
_CONTROLS = "".join(map(chr, range(0x20)))


def read_value(source: TextBuffer, parts: list[str]) -> Read[bool]:
    """Read one value and append its text to `parts`; false where it is broken or the text ends inside it."""
    closers: list[str] = []  # of the open brackets, outermost first
    while True:
        first = yield from source.peek()
        if first and first in "{[":
            closers.append("}" if first == "{" else "]")
            yield from source.read_one(first, parts)
            yield from source.skip_whitespace(parts)
            if (yield from source.peek()) != closers[-1]:
                if first == "{" and not (yield from _key(source, parts)):
                    return False
                continue
        elif not (yield from _scalar(source, parts, first)):
            return False
        while closers:
            yield from source.skip_whitespace(parts)
            if (yield from source.read_one(closers[-1], parts)):
                closers.pop()
                continue
            if not (yield from source.read_one(",", parts)):
                return False
            yield from source.skip_whitespace(parts)
            if closers[-1] == "}" and not (yield from _key(source, parts)):
                return False
            break
        else:
            return True


def read_string(source: TextBuffer) -> Read[str | None]:
    """Read a string and return its value; None where there is none, or one that UTF-8 cannot encode."""
    parts: list[str] = []
    if not (yield from _string(source, parts)):
        return None
    value: str = json.loads("".join(parts))
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value


def parse_object(text: str) -> str | None:
    """Return `text` as JSON if it is one object and nothing else, else `None`."""
    source = TextBuffer()
    source.push(text)
    source.ended = True  # so that the reading below never waits
    reading = _whole_object(source)
    try:
        while True:
            next(reading)
    except StopIteration as end:
        found: str | None = end.value
        return found


def _whole_object(source: TextBuffer) -> Read[str | None]:
    parts: list[str] = []
    yield from source.skip_whitespace()
    if (yield from source.peek()) != "{" or not (yield from read_value(source, parts)):
        return None
    yield from source.skip_whitespace()
    return None if (yield from source.has_more()) else "".join(parts)


def _key(source: TextBuffer, parts: list[str]) -> Read[bool]:
    if not (yield from _string(source, parts)):
        return False
    yield from source.skip_whitespace(parts)
    if not (yield from source.read_one(":", parts)):
        return False
    yield from source.skip_whitespace(parts)
    return True


def _scalar(source: TextBuffer, parts: list[str], first: str) -> Read[bool]:
    if first == '"':
        return (yield from _string(source, parts))
    if first in _WORDS:
        return (yield from source.read_word(_WORDS[first], parts))
    return (yield from _number(source, parts))


def _number(source: TextBuffer, parts: list[str]) -> Read[bool]:
    yield from source.read_one("-", parts)
    if not (yield from source.read_one("0", parts)) and not (yield from source.read_run(_DIGITS, parts)):
        return False
    if (yield from source.read_one(".", parts)) and not (yield from source.read_run(_DIGITS, parts)):
        return False
    if (yield from source.read_one("eE", parts)):
        yield from source.read_one("+-", parts)
        return (yield from source.read_run(_DIGITS, parts))
    return True


def _string(source: TextBuffer, parts: list[str]) -> Read[bool]:
    if not (yield from source.read_one('"', parts)):
        return False
    while True:
        yield from source.read_run(_UNESCAPED, parts)
        if (yield from source.read_one('"', parts)):
            return True
        if (yield from source.read_one("\\", parts)):
            if not (yield from _escape(source, parts)):
                return False
            continue
        raw: list[str] = []
        if not (yield from source.read_one(_CONTROLS, raw)):
            return False
        parts.append(json.dumps(raw[0])[1:-1])


def _escape(source: TextBuffer, parts: list[str]) -> Read[bool]:
    if (yield from source.read_one("u", parts)):
        for _ in range(4):
            if not (yield from source.read_one("0123456789abcdefABCDEF", parts)):
                return False
        return True
    return (yield from source.read_one('"\\/bfnrt', parts))
