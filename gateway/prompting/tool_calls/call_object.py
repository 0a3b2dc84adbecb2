"""Parses calls that are JSON objects: `{"name": …, "arguments": {…}}`.

The keys come in either order; `parameters` means `arguments`; arguments may also be a JSON string or `null`. Once the
name is known, arguments are streamed as they arrive.
"""

from collections.abc import Collection

from gateway.prompting.tool_calls import streaming_json
from gateway.prompting.tool_calls.pieces import CallArguments, CallBegin, Piece
from gateway.prompting.tool_calls.plain_text import read_until
from gateway.prompting.tool_calls.text_buffer import Parse, TextBuffer

_ARGUMENTS = ("arguments", "parameters")
_KEYS = frozenset({"name", "type", "id", *_ARGUMENTS})


def call_object(
    source: TextBuffer, call: int, *, announced: bool, closing: str = "", names: Collection[str] | None = None
) -> Parse[Piece, bool]:
    """Read one JSON object as call number `call`. Return False if it is no call; then `source` can be rewound.

    The object is a call as soon as its name and the beginning of its arguments have been read. `announced`: a tag
    before the object announces a call, so arguments may be absent and keys may be unknown. Otherwise an unknown key
    shows that the object is ordinary JSON, and so does a name that is not among `names`, if these are given.

    If the arguments have invalid JSON, the rest of the text becomes arguments, up to the tag `closing` if the format
    has one: a client that cannot parse them can show them to the model, while half a call in the content would be
    useless. Invalid JSON after the arguments does not invalidate the call.
    """
    name: str | None = None
    arguments: str | None = None
    begun = False
    if not (yield from source.read_one("{")):
        return False
    yield from source.skip_whitespace()
    while not (yield from source.read_one("}")):
        key = yield from streaming_json.read_string(source)
        if key is None or not (begun or announced or key in _KEYS):
            return begun
        yield from source.skip_whitespace()
        if not (yield from source.read_one(":")):
            return begun
        yield from source.skip_whitespace()
        if key == "name" and name is None:
            name = yield from streaming_json.read_string(source)
            if not name or (names is not None and name not in names):
                return False
        elif key in _ARGUMENTS and not begun and arguments is None:
            if name is not None and (yield from source.peek()) == "{":
                source.release()
                yield CallBegin(call, name)
                begun = True
                if not (yield from stream_arguments(source, call, closing)):
                    return True
            else:
                arguments = yield from _arguments(source)
                if arguments is None:
                    return False
        elif not (yield from streaming_json.read_value(source, [])):
            return begun
        if not begun and name is not None and arguments is not None:
            source.release()
            yield CallBegin(call, name)
            yield CallArguments(call, arguments)
            begun = True
        yield from source.skip_whitespace()
        if not (yield from source.read_one(",")) and (yield from source.peek()) != "}":
            return begun
        yield from source.skip_whitespace()
    if not begun and announced and name is not None:
        source.release()
        yield CallBegin(call, name)
        yield CallArguments(call, "{}")
        begun = True
    return begun


def call_array(
    source: TextBuffer, first: int, *, announced: bool, names: Collection[str] | None = None
) -> Parse[Piece, int]:
    """Read objects up to `]`, after the `[`; return the number of the next call.

    If it is `first`, there was no call and the source can still be rewound. After a call, text that does not continue
    the array is left to be read.
    """
    call = first
    yield from source.skip_whitespace()
    while (yield from call_object(source, call, announced=announced, names=names)):
        call += 1
        source.mark()
        yield from source.skip_whitespace()
        if (yield from source.read_one("]")):
            source.release()
            return call
        if not (yield from source.read_one(",")):
            break
        yield from source.skip_whitespace()
    if call > first:
        source.rewind()
    return call


def stream_arguments(source: TextBuffer, call: int, closing: str = "") -> Parse[Piece, bool]:
    """Yield a JSON object as the arguments of `call` while it arrives; `call_object` says how invalid JSON is handled.

    False where it was invalid or cut off; then everything up to `closing` has become arguments.
    """
    parts: list[str] = []
    reading = streaming_json.read_value(source, parts)
    while True:
        complete: bool | None = None
        try:
            next(reading)
        except StopIteration as end:
            complete = end.value
        if parts:
            yield CallArguments(call, "".join(parts))
            parts.clear()
        if complete is not None:
            break
        yield None
    if not complete:
        yield from read_until(source, closing, lambda text: CallArguments(call, text))
    return complete


def _arguments(source: TextBuffer) -> Parse[Piece, str | None]:
    first = yield from source.peek()
    if first == '"':
        text = yield from streaming_json.read_string(source)
        return None if text is None else streaming_json.parse_object(text if text.strip() else "{}")
    parts: list[str] = []
    if not first or first not in "{n" or not (yield from streaming_json.read_value(source, parts)):
        return None
    return "{}" if first == "n" else "".join(parts)
