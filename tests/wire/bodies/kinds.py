"""Bodies that cost as much as they can, within their bounds and beyond them, by what they are made of."""

from collections.abc import Callable, Mapping

from gateway.dialects.openai import completions, embeddings
from gateway.dialects.vocabulary import chat
from tests.wire.bodies.writing import (
    CHAT,
    EDITS,
    EMBEDDINGS,
    EMOJI,
    EMPTY,
    GENERATIONS,
    LETTER,
    LONG,
    MB,
    PART,
    QUOTE,
    TEXT,
    WORD,
    called,
    drawn,
    field,
    hello,
    inputs,
    many,
    members,
    messages,
    prompt,
    said,
    schema,
    tools,
)

VALUES, IDS, INPUTS = chat.VALUES - 100, completions.VALUES - 1000, embeddings.VALUES - 5000

ALLOWED: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "lists in an unknown field": (CHAT, lambda: hello(f'"x":[{many("[]", 99_000)}]')),
    "lists of lists": (CHAT, lambda: hello(f'"x":[{many("[[[[[[[[1]]]]]]]]", 12_000)}]')),
    "objects in an unknown field": (CHAT, lambda: hello('"x":[' + many('{"a":1}', 99_000) + "]")),
    "unknown fields": (CHAT, lambda: hello(members(VALUES))),
    "names that come again": (CHAT, lambda: hello(many('"u":1', VALUES))),
    "messages that are none": (CHAT, lambda: messages(many("[]", 99_000))),
    "messages": (CHAT, lambda: messages(many(said(LETTER), 4096))),
    "parts": (CHAT, lambda: messages(*[said(f"[{many(PART, 250)}]")] * 195)),
    "parts of one message": (CHAT, lambda: messages(said(f"[{many(PART, 49_000)}]"))),
    "calls": (CHAT, lambda: messages(*[called(EMPTY, 100)] * 247, said(LETTER))),
    "calls of one message": (CHAT, lambda: messages(called(EMPTY, 24_000))),
    "lists in arguments": (CHAT, lambda: messages(called('{"a":[' + many("[]", 99_000) + "]}"), said(LETTER))),
    "objects in arguments": (CHAT, lambda: messages(called('{"a":[' + many(EMPTY, 99_000) + "]}"), said(LETTER))),
    "arguments": (CHAT, lambda: messages(*[called('{"a":[' + many("1", 600) + "]}")] * 245, said(LETTER))),
    "tools": (CHAT, lambda: tools(128, 560)),
    "a large tool": (CHAT, lambda: tools(1, 90_000)),
    "tools that are none": (CHAT, lambda: hello(f'"tools":[{many(EMPTY, 99_000)}]')),
    "a schema": (CHAT, lambda: schema("{" + members(70_000) + "}")),
    "a schema in a text": (CHAT, lambda: hello(f'"guided_json":"{{\\"enum\\":[{many("[]", 49_000)}]}}"')),
    "arguments of the template": (CHAT, lambda: hello(f'"chat_template_kwargs":{{{members(80_000)}}}')),
    "biases that are wrong": (CHAT, lambda: hello(f'"logit_bias":{{{members(VALUES, WORD)}}}')),
    "biases": (CHAT, lambda: hello(f'"logit_bias":{{{members(VALUES)}}}')),
    "stops": (CHAT, lambda: hello(f'"stop":[{many("1", VALUES)}]')),
    "structured outputs": (CHAT, lambda: hello(f'"structured_outputs":{{{members(VALUES)}}}')),
    "a text": (CHAT, lambda: messages(said(f'"{LONG[:7_900_000]}"'))),
    "a text and an emoji": (CHAT, lambda: messages(said(f'"{LONG[:7_900_000]}{EMOJI}"'))),
    "texts and emoji": (CHAT, lambda: messages(*[said(f'"{LONG[:1900]}{EMOJI}"')] * 4096)),
    "emoji": (CHAT, lambda: messages(said(f'"{EMOJI * 7_000_000}"'))),
    "escapes": (CHAT, lambda: messages(said('"' + "\\u0041" * 5_000_000 + '"'))),
    "line breaks": (CHAT, lambda: messages(said('"' + "\\n" * 7_900_000 + '"'))),
    "a text of commas": (CHAT, lambda: messages(said('"' + "[,{" * 2_600_000 + '"'))),
    "a text of digits": (CHAT, lambda: messages(said('"' + "9" * 7_900_000 + '"'))),
    "a text of quotes": (CHAT, lambda: messages(said('"' + '\\",' * 3_900_000 + '"'))),
    "a text that ends in invalid UTF-8": (CHAT, lambda: messages(said(f'"{LONG}"')).replace(b'x"', b'x\xff"')),
    "escapes that end in invalid UTF-8": (
        CHAT,
        lambda: messages(said('"' + "\\n" * 15_000_000 + '"')).replace(b'n"}', b'n\xff"}'),
    ),
    "white space": (CHAT, lambda: b" " * 30_000_000),
    "white space before a chat": (CHAT, lambda: b"\n" * 30_000_000 + hello('"n":1')),
    "long numbers": (CHAT, lambda: hello(f'"x":[{many("9" * 510, 58_000)}]')),
    "a long fraction": (CHAT, lambda: hello('"x":0.' + "12345" * 100)),
    "a huge exponent": (CHAT, lambda: hello('"temperature":1e999999')),
    "a long name of a model": (CHAT, lambda: hello(f'"model":"{LONG}"')),
    "a long name of a field": (CHAT, lambda: hello(f'"{LONG}":1')),
    "a long name of a token": (CHAT, lambda: hello(f'"logit_bias":{{"{LONG}":1}}')),
    "depth": (CHAT, lambda: b'{"a":' * 99_000),
    "token ids": (TEXT, lambda: prompt(f"[{many('12345', IDS)}]")),
    "lists of token ids": (TEXT, lambda: prompt(f"[{many('[' + many('123456789', 4600) + ']', 128)}]")),
    "token ids of which the last is wrong": (TEXT, lambda: prompt(f"[{many('12345', IDS)},-1]")),
    "prompts": (TEXT, lambda: prompt(f"[{many(WORD, IDS)}]")),
    "ids to embed": (EMBEDDINGS, lambda: inputs(f"[{many('12345', INPUTS)}]")),
    "lists of ids to embed": (EMBEDDINGS, lambda: inputs(f"[{many('[' + many('1234567', 533) + ']', 2048)}]")),
    "texts to embed": (EMBEDDINGS, lambda: inputs("[" + many(f'"{LONG[:3800]}"', 2048) + "]")),
    "texts to embed with emoji": (EMBEDDINGS, lambda: inputs(f'["{LONG[:7_900_000]}{EMOJI}"]')),
    "too many texts to embed": (EMBEDDINGS, lambda: inputs(f"[{many(LETTER, INPUTS)}]")),
    "pictures that are none": (EDITS, lambda: drawn(f'"prompt":"p","images":[{many(EMPTY, 4900)}]')),
    "a long prompt": (GENERATIONS, lambda: drawn(f'"prompt":"{LONG}"')),
}
"""What just fits: a path and a body. It is answered with 200, or with 400 where a field is wrong."""

_LISTS, _NUMBER = many("[]", 10_000_000), "9" * 4299

REFUSED: Mapping[str, tuple[str, Callable[[], bytes], str]] = {
    "lists in an unknown field": (CHAT, lambda: hello(f'"x":[{_LISTS}]'), "150000"),
    "messages that are none": (CHAT, lambda: messages(_LISTS), "150000"),
    "messages": (CHAT, lambda: messages(many(said(LETTER), 900_000)), "150000"),
    "parts": (CHAT, lambda: messages(said(f"[{many(PART, 1_000_000)}]")), "150000"),
    "calls": (CHAT, lambda: messages(called(EMPTY, 500_000)), "150000"),
    "tools that are none": (CHAT, lambda: hello(f'"tools":[{many(EMPTY, 10_000_000)}]'), "150000"),
    "a large tool": (CHAT, lambda: tools(1, 2_000_000), "150000"),
    "biases that are wrong": (CHAT, lambda: hello(f'"logit_bias":{{{members(2_000_000, WORD)}}}'), "150000"),
    "unknown fields": (CHAT, lambda: hello(members(2_500_000)), "150000"),
    "names that come again": (CHAT, lambda: hello(many('"u":1', 4_900_000)), "150000"),
    "lists in arguments": (CHAT, lambda: messages(called('{"a":[' + _LISTS + "]}")), "'messages'.*150000"),
    "lists in the arguments of many calls": (
        CHAT,
        lambda: messages(*[called('{"a":[' + many("[]", 10_000) + "]}")] * 900),
        "'messages'.*150000",
    ),
    "a schema in a text": (CHAT, lambda: hello(f'"guided_json":"{{\\"enum\\":[{_LISTS}]}}"'), "100000"),
    "values behind strings that look like values": (
        CHAT,
        lambda: hello(f'"x":"{",[{" * 100_000}","y":"\\\\","z":[{many(QUOTE, 5_000_000)}]'),
        "150000",
    ),
    "long numbers": (CHAT, lambda: hello(f'"x":[{many(_NUMBER, 7000)}]'), "512 digits"),
    "long numbers in arguments": (CHAT, lambda: messages(called('{"a":[' + many(_NUMBER, 7000) + "]}")), "512 digits"),
    "a text": (CHAT, lambda: messages(said(f'"{LONG}"')), "8000000 characters"),
    "a text and an emoji": (CHAT, lambda: messages(said(f'"{LONG}{EMOJI}"')), "8000000 characters"),
    "a long description of a tool": (
        CHAT,
        lambda: tools(1, 1).replace(b'"name"', b'"description":"' + LONG.encode() + b'","name"'),
        "4000000 bytes",
    ),
    "a long word in a schema": (CHAT, lambda: schema(f'{{"const":"{LONG}"}}'), "1000000 bytes"),
    "a long expression": (CHAT, lambda: hello(f'"guided_regex":"{EMOJI * 7_000_000}"'), "1000000 bytes"),
    "a long argument of the template": (
        CHAT,
        lambda: hello(f'"chat_template_kwargs":{{"a":"{LONG}"}}'),
        "1000000 bytes",
    ),
    "token ids": (TEXT, lambda: prompt(f"[{many('12345', 5_000_000)}]"), "600000"),
    "lists as prompts": (TEXT, lambda: prompt(f"[{_LISTS}]"), "100000"),
    "an echo to many answers": (
        TEXT,
        lambda: prompt(f'"{LONG[:7_000_000]}","echo":true,"n":128'),
        "'echo'.*8000000",
    ),
    "a long prompt": (TEXT, lambda: prompt(f'"{LONG}"'), "8000000 characters"),
    "ids to embed": (EMBEDDINGS, lambda: inputs(f"[{many('12345', 5_000_000)}]"), "1100000"),
    "a long text to embed": (EMBEDDINGS, lambda: inputs(f'"{LONG}"'), "8000000 characters"),
    "pictures that are none": (EDITS, lambda: drawn(f'"prompt":"p","images":[{_LISTS}]'), "5000"),
}
"""What is beyond a bound: a path, a body of up to 30 MB, and words of the sentence that refuses it with 413."""

_PLAIN = "multipart/form-data; boundary=b"
_LETTERS = "ö".encode() * 15_000_000
_PUNYCODE = b"a-" + b"b" * 3 * MB

FORMS: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "punycode": (f"{_PLAIN}; charset=punycode", lambda: field(_PUNYCODE)),
    "punycode of a part": (_PLAIN, lambda: field(_PUNYCODE, more=b"Content-Type: text/plain; charset=punycode\r\n")),
    "punycode in _charset_": (_PLAIN, lambda: field(b"punycode", name=b"_charset_")),
    "a long text": (_PLAIN, lambda: field(_LETTERS)),
    "a long number": (_PLAIN, lambda: field(_LETTERS, name=b"n")),
    "a number of lists": (_PLAIN, lambda: field(b"[[]" + b",[]" * 10_000_000 + b"]", name=b"n")),
    "lines that begin as the boundary does": (_PLAIN, lambda: field(b"\r\n--bX" * 5_000_000)),
    "padding": (_PLAIN, lambda: field(b"\r\n--b" + b" " * 30_000_000)),
    "paddings": (_PLAIN, lambda: field((b"\r\n--b" + b" " * 60) * 450_000)),
    "line breaks": (_PLAIN, lambda: field(b"\r\n" * 15_000_000)),
    "parts": (_PLAIN, lambda: b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n" * 600_000),
    "headers": (_PLAIN, lambda: b"--b\r\n" + b"X: y\r\n" * 5_000_000),
}
"""Content types and bodies that no form may cost much with, all refused with 400."""
