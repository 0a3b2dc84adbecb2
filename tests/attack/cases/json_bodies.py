"""Attacks by JSON that is cheap to send and expensive to parse: many, deep, long and invalid values."""

from collections.abc import Callable

from tests.attack.cases.case import REFUSAL_STATUSES, Attack, AttackCase, Target

CHAT, COMPLETE, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
IMAGES, EDIT, PLATFORM = "/v1/images/generations", "/v1/images/edits", "/tritonic/v1/chat/completions"
SIZE = 3 * 2**20
"""Bytes of most of these bodies: enough to tell linear from quadratic work."""
ALLOWED_STATUSES = (200, *REFUSAL_STATUSES)
_USER = b'{"role":"user","content":"Hello"}'


def json_array(piece: bytes, size: int = SIZE) -> bytes:
    """Return a JSON array of copies of `piece` with about `size` bytes."""
    return b"[" + (piece + b",") * (size // (len(piece) + 1)) + piece + b"]"


def chat_body(fields: bytes, messages: bytes = b"[" + _USER + b"]") -> bytes:
    """Return the body of a chat with additional `fields`."""
    return b'{"model":"hello","max_tokens":1,"messages":' + messages + (b"," + fields if fields else b"") + b"}"


def post_body(path: str, body: Callable[[], bytes], times: int = 1) -> Attack:
    """Send a body `times` times at once."""

    def attack(target: Target) -> None:
        data = body()
        if times == 1:
            target.json(path, data)
        else:
            target.run_concurrently(times, lambda _: target.json(path, data))

    return attack


def _chat_with(fields: Callable[[], bytes]) -> Callable[[], bytes]:
    return lambda: chat_body(fields())


def _chat_with_messages(piece: bytes) -> Callable[[], bytes]:
    return lambda: chat_body(b"", json_array(piece))


def _prompt(value: Callable[[], bytes]) -> Callable[[], bytes]:
    return lambda: b'{"model":"hello","max_tokens":1,"prompt":' + value() + b"}"


def _input(value: Callable[[], bytes]) -> Callable[[], bytes]:
    return lambda: b'{"model":"vectors","input":' + value() + b"}"


_CALL = b'{"id":"a","function":{"name":"f","arguments":"{}"}}'
_CALLS = _chat_with_messages(b'{"role":"assistant","tool_calls":[' + b",".join([_CALL] * 128) + b"]}")
_PART = b'{"type":"text","text":"x"}'
_TOOL = (
    b'{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"type":"string"}}}}}'
)
_URL = b'{"type":"image_url","image_url":{"url":"data:,"}}'


def _biases(entry: Callable[[int], str]) -> Callable[[], bytes]:
    return _chat_with(lambda: ('"logit_bias":{' + ",".join(map(entry, range(150_000))) + "}").encode())


_MANY_VALUES = {
    "a million empty lists as messages": (CHAT, _chat_with_messages(b"[]")),
    "messages without a field": (CHAT, _chat_with_messages(b"{}")),
    "many messages": (CHAT, _chat_with_messages(_USER)),
    "many messages at a platform": (PLATFORM, _chat_with_messages(_USER)),
    "many tool calls": (CHAT, _CALLS),
    "tool calls of one message": (
        CHAT,
        lambda: chat_body(b"", b'[{"role":"assistant","tool_calls":' + json_array(_CALL) + b"}]"),
    ),
    "many parts": (CHAT, lambda: chat_body(b"", b'[{"role":"user","content":' + json_array(_PART) + b"}]")),
    "parts of many messages": (
        CHAT,
        _chat_with_messages(b'{"role":"user","content":[' + b",".join([_PART] * 200) + b"]}"),
    ),
    "many references": (CHAT, lambda: chat_body(b"", b'[{"role":"user","content":' + json_array(_URL) + b"}]")),
    "many tools": (CHAT, _chat_with(lambda: b'"tools":' + json_array(_TOOL))),
    "a tool of many properties": (
        CHAT,
        _chat_with(
            lambda: (
                b'"tools":[{"type":"function","function":{"name":"f","parameters":{"enum":' + json_array(b"1") + b"}}}]"
            )
        ),
    ),
    "token ids of a prompt": (COMPLETE, _prompt(lambda: json_array(b"1"))),
    "prompts of token ids": (COMPLETE, _prompt(lambda: json_array(b"[1]"))),
    "token ids to embed": (EMBED, _input(lambda: json_array(b"1"))),
    "lists of token ids to embed": (EMBED, _input(lambda: json_array(b"[" + b"1," * 999 + b"1]"))),
    "many texts to embed": (EMBED, _input(lambda: json_array(b'"a"'))),
    "empty lists to embed": (EMBED, _input(lambda: json_array(b"[]"))),
    "an unknown field of lists": (CHAT, _chat_with(lambda: b'"x":' + json_array(b"[]"))),
    "an unknown field of names": (
        CHAT,
        _chat_with(lambda: b'"x":{' + b",".join(b'"%d":0' % n for n in range(250_000)) + b"}"),
    ),
    "the same name again and again": (CHAT, _chat_with(lambda: b",".join([b'"a":[]'] * 400_000))),
    "many stop strings": (CHAT, _chat_with(lambda: b'"stop":' + json_array(b'"a"'))),
    "stop tokens": (CHAT, _chat_with(lambda: b'"stop_token_ids":' + json_array(b"-1"))),
    "many references of an edit": (
        EDIT,
        lambda: b'{"model":"shapes","prompt":"x","image":' + json_array(b'"data:,"') + b"}",
    ),
    "many references of a picture": (
        IMAGES,
        lambda: b'{"model":"shapes","prompt":"x","images":' + json_array(b'{"image_url":"data:,"}') + b"}",
    ),
    "biases of wrong tokens": (CHAT, _biases(lambda number: f'"x{number}":1')),
    "biases of wrong sizes": (CHAT, _biases(lambda number: f'"{number}":"x"')),
    "biases in great number": (CHAT, _biases(lambda number: f'"{number}":1')),
}

_LONG = {
    "nested lists": (CHAT, _chat_with(lambda: b'"x":' + b"[" * 1_000_000 + b"]" * 1_000_000)),
    "nested objects": (CHAT, _chat_with(lambda: b'"x":' + b'{"a":' * 300_000 + b"0" + b"}" * 300_000)),
    "a schema nested as deep as JSON may be": (
        CHAT,
        _chat_with(lambda: b'"guided_json":' + b'{"items":' * 190 + b"{}" + b"}" * 190),
    ),
    "a number of a million digits": (CHAT, _chat_with(lambda: b'"seed":' + b"9" * 1_000_000)),
    "many large numbers": (CHAT, _chat_with(lambda: b'"x":' + json_array(b"9" * 300))),
    "a large exponent": (CHAT, _chat_with(lambda: b'"temperature":1e' + b"9" * 1_000_000)),
    "escapes": (CHAT, _chat_with(lambda: b'"x":"' + b"\\u0041" * 500_000 + b'"')),
    "a million spaces between values": (CHAT, _chat_with(lambda: b'"x":[' + b" " * SIZE + b"]")),
    "a name of megabytes": (CHAT, _chat_with(lambda: b'"' + b"a" * SIZE + b'":1')),
    "a model's name of megabytes": (CHAT, lambda: b'{"model":"' + b"a" * SIZE + b'","messages":[' + _USER + b"]}"),
    "a text of megabytes": (CHAT, lambda: chat_body(b"", b'[{"role":"user","content":"' + b"word " * 600_000 + b'"}]')),
    "a prompt for a picture": (IMAGES, lambda: b'{"model":"shapes","prompt":"' + b"x" * SIZE + b'"}'),
}

_COSTLY = {
    "a million empty lists as messages",
    "many tool calls",
    "many parts",
    "many tools",
    "token ids of a prompt",
    "biases of wrong tokens",
    "an unknown field of lists",
    "nested lists",
}

CASES = [
    AttackCase(f"JSON: {name}", post_body(path, body), ALLOWED_STATUSES, runs_on_two_workers=name in _COSTLY)
    for name, (path, body) in (_MANY_VALUES | _LONG).items()
]
LARGEST_BODY_BYTES = 31 * 2**20
"""Bytes of a body just below the limit of the gateway."""


def _largest_body(name: str, body: Callable[[], bytes], path: str = CHAT) -> AttackCase:
    return AttackCase(
        f"JSON: 31 MB of {name}", post_body(path, body), ALLOWED_STATUSES, runs_on_two_workers=name == "empty lists"
    )


CASES += [
    _largest_body("empty lists", lambda: chat_body(b"", json_array(b"[]", LARGEST_BODY_BYTES))),
    _largest_body(
        "tool calls",
        lambda: chat_body(
            b"",
            json_array(b'{"role":"assistant","tool_calls":[' + b",".join([_CALL] * 128) + b"]}", LARGEST_BODY_BYTES),
        ),
    ),
    _largest_body(
        "parts",
        lambda: chat_body(
            b"", json_array(b'{"role":"user","content":[' + b",".join([_PART] * 200) + b"]}", LARGEST_BODY_BYTES)
        ),
    ),
    _largest_body("tools", lambda: chat_body(b'"tools":' + json_array(_TOOL, LARGEST_BODY_BYTES))),
    _largest_body(
        "token ids", lambda: b'{"model":"hello","prompt":' + json_array(b"1", LARGEST_BODY_BYTES) + b"}", COMPLETE
    ),
    _largest_body(
        "one text",
        lambda: chat_body(b"", b'[{"role":"user","content":"' + b"word " * (LARGEST_BODY_BYTES // 5) + b'"}]'),
    ),
    _largest_body(
        "escapes",
        lambda: chat_body(b"", b'[{"role":"user","content":"' + b"\\u00e9" * (LARGEST_BODY_BYTES // 6) + b'"}]'),
    ),
    _largest_body("spaces", lambda: chat_body(b'"x":[' + b" " * LARGEST_BODY_BYTES + b"]")),
    _largest_body("a wrong beginning", lambda: b"x" + b" " * LARGEST_BODY_BYTES),
]
CASES.append(
    AttackCase(
        "JSON: eight bodies of many values at once",
        post_body(CHAT, _chat_with_messages(b"[]"), 8),
        ALLOWED_STATUSES,
        runs_on_two_workers=True,
    )
)
