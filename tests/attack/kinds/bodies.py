"""JSON that is cheap to send and dear to read: many values, deep ones, long ones, wrong ones."""

from collections.abc import Callable

from tests.attack.kinds.kind import REFUSED, Attack, Kind, Target

CHAT, COMPLETE, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
DRAW, EDIT, PLATFORM = "/v1/images/generations", "/v1/images/edits", "/tritonic/v1/chat/completions"
SIZE = 3 * 2**20
"""Bytes of most of these bodies: enough to tell work per byte from more."""
ANSWERED = (200, *REFUSED)
_USER = b'{"role":"user","content":"Hello"}'


def many(piece: bytes, size: int = SIZE) -> bytes:
    """A list of so many of the same that it is about so long."""
    return b"[" + (piece + b",") * (size // (len(piece) + 1)) + piece + b"]"


def chat(fields: bytes, messages: bytes = b"[" + _USER + b"]") -> bytes:
    """A body for a chat."""
    return b'{"model":"hello","max_tokens":1,"messages":' + messages + (b"," + fields if fields else b"") + b"}"


def posted(path: str, body: Callable[[], bytes], times: int = 1) -> Attack:
    """Send a body; several at once where `times` says so."""

    def attack(target: Target) -> None:
        written = body()
        if times == 1:
            target.json(path, written)
        else:
            target.at_once(times, lambda _: target.json(path, written))

    return attack


def _chat_of(fields: Callable[[], bytes]) -> Callable[[], bytes]:
    return lambda: chat(fields())


def _turns(piece: bytes) -> Callable[[], bytes]:
    return lambda: chat(b"", many(piece))


def _prompt(value: Callable[[], bytes]) -> Callable[[], bytes]:
    return lambda: b'{"model":"hello","max_tokens":1,"prompt":' + value() + b"}"


def _input(value: Callable[[], bytes]) -> Callable[[], bytes]:
    return lambda: b'{"model":"vectors","input":' + value() + b"}"


_CALL = b'{"id":"a","function":{"name":"f","arguments":"{}"}}'
_CALLS = _turns(b'{"role":"assistant","tool_calls":[' + b",".join([_CALL] * 128) + b"]}")
_PART = b'{"type":"text","text":"x"}'
_TOOL = (
    b'{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"type":"string"}}}}}'
)
_URL = b'{"type":"image_url","image_url":{"url":"data:,"}}'


def _biases(entry: Callable[[int], str]) -> Callable[[], bytes]:
    return _chat_of(lambda: ('"logit_bias":{' + ",".join(map(entry, range(150_000))) + "}").encode())


_VALUES = {
    "a million empty lists as messages": (CHAT, _turns(b"[]")),
    "messages without a field": (CHAT, _turns(b"{}")),
    "many messages": (CHAT, _turns(_USER)),
    "many messages at a platform": (PLATFORM, _turns(_USER)),
    "many tool calls": (CHAT, _CALLS),
    "tool calls of one message": (
        CHAT, lambda: chat(b"", b'[{"role":"assistant","tool_calls":' + many(_CALL) + b"}]")),
    "many parts": (CHAT, lambda: chat(b"", b'[{"role":"user","content":' + many(_PART) + b"}]")),
    "parts of many messages": (
        CHAT, _turns(b'{"role":"user","content":[' + b",".join([_PART] * 200) + b"]}")),
    "many references": (CHAT, lambda: chat(b"", b'[{"role":"user","content":' + many(_URL) + b"}]")),
    "many tools": (CHAT, _chat_of(lambda: b'"tools":' + many(_TOOL))),
    "a tool of many properties": (
        CHAT, _chat_of(lambda: b'"tools":[{"type":"function","function":{"name":"f","parameters":{"enum":' + many(b"1")
                       + b"}}}]")),
    "token ids of a prompt": (COMPLETE, _prompt(lambda: many(b"1"))),
    "prompts of token ids": (COMPLETE, _prompt(lambda: many(b"[1]"))),
    "token ids to embed": (EMBED, _input(lambda: many(b"1"))),
    "lists of token ids to embed": (EMBED, _input(lambda: many(b"[" + b"1," * 999 + b"1]"))),
    "many texts to embed": (EMBED, _input(lambda: many(b'"a"'))),
    "empty lists to embed": (EMBED, _input(lambda: many(b"[]"))),
    "an unknown field of lists": (CHAT, _chat_of(lambda: b'"x":' + many(b"[]"))),
    "an unknown field of names": (
        CHAT, _chat_of(lambda: b'"x":{' + b",".join(b'"%d":0' % n for n in range(250_000)) + b"}")),
    "the same name again and again": (CHAT, _chat_of(lambda: b",".join([b'"a":[]'] * 400_000))),
    "many stop strings": (CHAT, _chat_of(lambda: b'"stop":' + many(b'"a"'))),
    "stop tokens": (CHAT, _chat_of(lambda: b'"stop_token_ids":' + many(b"-1"))),
    "many references of an edit": (
        EDIT, lambda: b'{"model":"shapes","prompt":"x","image":' + many(b'"data:,"') + b"}"),
    "many references of a picture": (
        DRAW, lambda: b'{"model":"shapes","prompt":"x","images":' + many(b'{"image_url":"data:,"}') + b"}"),
    "biases of wrong tokens": (CHAT, _biases(lambda number: f'"x{number}":1')),
    "biases of wrong sizes": (CHAT, _biases(lambda number: f'"{number}":"x"')),
    "biases in great number": (CHAT, _biases(lambda number: f'"{number}":1')),
}  # fmt: skip

_LONG = {
    "nested lists": (CHAT, _chat_of(lambda: b'"x":' + b"[" * 1_000_000 + b"]" * 1_000_000)),
    "nested objects": (CHAT, _chat_of(lambda: b'"x":' + b'{"a":' * 300_000 + b"0" + b"}" * 300_000)),
    "a schema nested as deep as JSON may be": (
        CHAT, _chat_of(lambda: b'"guided_json":' + b'{"items":' * 190 + b"{}" + b"}" * 190)),
    "a number of a million digits": (CHAT, _chat_of(lambda: b'"seed":' + b"9" * 1_000_000)),
    "many large numbers": (CHAT, _chat_of(lambda: b'"x":' + many(b"9" * 300))),
    "a large exponent": (CHAT, _chat_of(lambda: b'"temperature":1e' + b"9" * 1_000_000)),
    "escapes": (CHAT, _chat_of(lambda: b'"x":"' + b"\\u0041" * 500_000 + b'"')),
    "a million spaces between values": (CHAT, _chat_of(lambda: b'"x":[' + b" " * SIZE + b"]")),
    "a name of megabytes": (CHAT, _chat_of(lambda: b'"' + b"a" * SIZE + b'":1')),
    "a model's name of megabytes": (CHAT, lambda: b'{"model":"' + b"a" * SIZE + b'","messages":[' + _USER + b"]}"),
    "a text of megabytes": (CHAT, lambda: chat(b"", b'[{"role":"user","content":"' + b"word " * 600_000 + b'"}]')),
    "a prompt for a picture": (DRAW, lambda: b'{"model":"shapes","prompt":"' + b"x" * SIZE + b'"}'),
}  # fmt: skip

_COSTLY = {
    "a million empty lists as messages", "many tool calls", "many parts", "many tools", "token ids of a prompt",
    "biases of wrong tokens", "an unknown field of lists", "nested lists",
}  # fmt: skip

KINDS = [
    Kind(f"JSON: {name}", posted(path, body), ANSWERED, costly=name in _COSTLY)
    for name, (path, body) in (_VALUES | _LONG).items()
]
LARGEST = 31 * 2**20
"""Bytes of a body that is just taken."""


def _largest(name: str, body: Callable[[], bytes], path: str = CHAT) -> Kind:
    return Kind(f"JSON: 31 MB of {name}", posted(path, body), ANSWERED, costly=name == "empty lists")


KINDS += [
    _largest("empty lists", lambda: chat(b"", many(b"[]", LARGEST))),
    _largest("tool calls", lambda: chat(
        b"", many(b'{"role":"assistant","tool_calls":[' + b",".join([_CALL] * 128) + b"]}", LARGEST))),
    _largest("parts", lambda: chat(
        b"", many(b'{"role":"user","content":[' + b",".join([_PART] * 200) + b"]}", LARGEST))),
    _largest("tools", lambda: chat(b'"tools":' + many(_TOOL, LARGEST))),
    _largest("token ids", lambda: b'{"model":"hello","prompt":' + many(b"1", LARGEST) + b"}", COMPLETE),
    _largest("one text", lambda: chat(
        b"", b'[{"role":"user","content":"' + b"word " * (LARGEST // 5) + b'"}]')),
    _largest("escapes", lambda: chat(b"", b'[{"role":"user","content":"' + b"\\u00e9" * (LARGEST // 6) + b'"}]')),
    _largest("spaces", lambda: chat(b'"x":[' + b" " * LARGEST + b"]")),
    _largest("a wrong beginning", lambda: b"x" + b" " * LARGEST),
]  # fmt: skip
KINDS.append(Kind("JSON: eight bodies of many values at once", posted(CHAT, _turns(b"[]"), 8), ANSWERED, costly=True))
