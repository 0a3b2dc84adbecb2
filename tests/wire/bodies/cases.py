"""The most expensive bodies within the limits, and bodies beyond them."""

from collections.abc import Callable, Mapping

from gateway.dialects.openai import completions, embeddings
from gateway.dialects.openai.wire import chat
from tests.wire.bodies.builders import (
    CHAT,
    COMPLETIONS,
    EDITS,
    EMBEDDINGS,
    EMOJI,
    EMPTY,
    EMPTY_STRING,
    GENERATIONS,
    LETTER,
    LONG_TEXT,
    MB,
    PART,
    QUOTE,
    chat_body,
    chat_messages_body,
    completion_body,
    embedding_body,
    form_body,
    image_body,
    object_members,
    repeat,
    schema_body,
    tool_call_message,
    tools_body,
    user_message,
)

VALUES, IDS, INPUTS = chat.MAX_JSON_VALUES - 100, completions.MAX_JSON_VALUES - 1000, embeddings.MAX_JSON_VALUES - 5000

ALLOWED: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "lists in an unknown field": (CHAT, lambda: chat_body(f'"x":[{repeat("[]", 74_000)}]')),
    "lists of lists": (CHAT, lambda: chat_body(f'"x":[{repeat("[[[[[[[[1]]]]]]]]", 12_000)}]')),
    "objects in an unknown field": (CHAT, lambda: chat_body('"x":[' + repeat('{"a":1}', 74_000) + "]")),
    "unknown fields": (CHAT, lambda: chat_body(object_members(VALUES))),
    "names that come again": (CHAT, lambda: chat_body(repeat('"u":1', VALUES))),
    "messages that are none": (CHAT, lambda: chat_messages_body(repeat("[]", 74_000))),
    "messages": (CHAT, lambda: chat_messages_body(repeat(user_message(LETTER), 4096))),
    "parts": (CHAT, lambda: chat_messages_body(*[user_message(f"[{repeat(PART, 250)}]")] * 195)),
    "parts of one message": (CHAT, lambda: chat_messages_body(user_message(f"[{repeat(PART, 49_000)}]"))),
    "calls": (CHAT, lambda: chat_messages_body(*[tool_call_message(EMPTY, 100)] * 247, user_message(LETTER))),
    "calls of one message": (CHAT, lambda: chat_messages_body(tool_call_message(EMPTY, 24_000))),
    "lists in arguments": (
        CHAT,
        lambda: chat_messages_body(tool_call_message('{"a":[' + repeat("[]", 74_000) + "]}"), user_message(LETTER)),
    ),
    "objects in arguments": (
        CHAT,
        lambda: chat_messages_body(tool_call_message('{"a":[' + repeat(EMPTY, 74_000) + "]}"), user_message(LETTER)),
    ),
    "arguments": (
        CHAT,
        lambda: chat_messages_body(
            *[tool_call_message('{"a":[' + repeat("1", 600) + "]}")] * 245, user_message(LETTER)
        ),
    ),
    "tools": (CHAT, lambda: tools_body(120, 580)),
    "a large tool": (CHAT, lambda: tools_body(1, 16_000)),
    "tools that are none": (CHAT, lambda: chat_body(f'"tools":[{repeat(EMPTY, 74_000)}]')),
    "a schema": (CHAT, lambda: schema_body("{" + object_members(32_000) + "}")),
    "a schema in a text": (CHAT, lambda: chat_body(f'"guided_json":"{{\\"enum\\":[{repeat("[]", 49_000)}]}}"')),
    "arguments of the template": (CHAT, lambda: chat_body(f'"chat_template_kwargs":{{{object_members(80_000)}}}')),
    "biases that are wrong": (CHAT, lambda: chat_body(f'"logit_bias":{{{object_members(VALUES, EMPTY_STRING)}}}')),
    "biases": (CHAT, lambda: chat_body(f'"logit_bias":{{{object_members(VALUES)}}}')),
    "stops": (CHAT, lambda: chat_body(f'"stop":[{repeat("1", VALUES)}]')),
    "structured outputs": (CHAT, lambda: chat_body(f'"structured_outputs":{{{object_members(VALUES)}}}')),
    "a text": (CHAT, lambda: chat_messages_body(user_message(f'"{LONG_TEXT[:7_900_000]}"'))),
    "a text and an emoji": (CHAT, lambda: chat_messages_body(user_message(f'"{LONG_TEXT[:7_900_000]}{EMOJI}"'))),
    "texts and emoji": (CHAT, lambda: chat_messages_body(*[user_message(f'"{LONG_TEXT[:1900]}{EMOJI}"')] * 4096)),
    "emoji": (CHAT, lambda: chat_messages_body(user_message(f'"{EMOJI * 7_000_000}"'))),
    "escapes": (CHAT, lambda: chat_messages_body(user_message('"' + "\\u0041" * 5_000_000 + '"'))),
    "line breaks": (CHAT, lambda: chat_messages_body(user_message('"' + "\\n" * 7_900_000 + '"'))),
    "a text of commas": (CHAT, lambda: chat_messages_body(user_message('"' + "[,{" * 2_600_000 + '"'))),
    "a text of digits": (CHAT, lambda: chat_messages_body(user_message('"' + "9" * 7_900_000 + '"'))),
    "a text of quotes": (CHAT, lambda: chat_messages_body(user_message('"' + '\\",' * 3_900_000 + '"'))),
    "special tokens": (CHAT, lambda: chat_messages_body(user_message('"' + "<|im_start|>" * 650_000 + '"'))),
    "beginnings of special tokens": (CHAT, lambda: chat_messages_body(user_message('"' + "<|im_" * 1_580_000 + '"'))),
    "first characters of special tokens": (CHAT, lambda: chat_messages_body(user_message('"' + "<" * 7_900_000 + '"'))),
    "special tokens of many messages": (
        CHAT,
        lambda: chat_messages_body(*[user_message('"' + "<|im_end|>" * 150 + '"')] * 4096),
    ),
    "special tokens and what masks them": (
        CHAT,
        lambda: chat_messages_body(user_message('"' + "\uee00<|im_end|>" * 700_000 + '"')),
    ),
    "special tokens in arguments": (
        CHAT,
        lambda: chat_messages_body(tool_call_message('{"a":"' + "<|im_end|>" * 780_000 + '"}'), user_message(LETTER)),
    ),
    "special tokens in tools": (CHAT, lambda: tools_body(128, 500).replace(b"{}", b'{"<|im_end|>":"<|im_end|>"}')),
    "a text that ends in invalid UTF-8": (
        CHAT,
        lambda: chat_messages_body(user_message(f'"{LONG_TEXT}"')).replace(b'x"', b'x\xff"'),
    ),
    "escapes that end in invalid UTF-8": (
        CHAT,
        lambda: chat_messages_body(user_message('"' + "\\n" * 15_000_000 + '"')).replace(b'n"}', b'n\xff"}'),
    ),
    "white space": (CHAT, lambda: b" " * 30_000_000),
    "white space before a chat": (CHAT, lambda: b"\n" * 30_000_000 + chat_body('"n":1')),
    "long numbers": (CHAT, lambda: chat_body(f'"x":[{repeat("9" * 510, 58_000)}]')),
    "a long fraction": (CHAT, lambda: chat_body('"x":0.' + "12345" * 100)),
    "a huge exponent": (CHAT, lambda: chat_body('"temperature":1e999999')),
    "a long name of a model": (CHAT, lambda: chat_body(f'"model":"{LONG_TEXT}"')),
    "a long name of a field": (CHAT, lambda: chat_body(f'"{LONG_TEXT}":1')),
    "a long name of a token": (CHAT, lambda: chat_body(f'"logit_bias":{{"{LONG_TEXT}":1}}')),
    "depth": (CHAT, lambda: b'{"a":' * 99_000),
    "token ids": (COMPLETIONS, lambda: completion_body(f"[{repeat('12345', IDS)}]")),
    "lists of token ids": (
        COMPLETIONS,
        lambda: completion_body(f"[{repeat('[' + repeat('123456789', 4600) + ']', 128)}]"),
    ),
    "token ids of which the last is wrong": (COMPLETIONS, lambda: completion_body(f"[{repeat('12345', IDS)},-1]")),
    "prompts": (COMPLETIONS, lambda: completion_body(f"[{repeat(EMPTY_STRING, IDS)}]")),
    "ids to embed": (EMBEDDINGS, lambda: embedding_body(f"[{repeat('12345', INPUTS)}]")),
    "lists of ids to embed": (
        EMBEDDINGS,
        lambda: embedding_body(f"[{repeat('[' + repeat('1234567', 533) + ']', 2048)}]"),
    ),
    "texts to embed": (EMBEDDINGS, lambda: embedding_body("[" + repeat(f'"{LONG_TEXT[:3800]}"', 2048) + "]")),
    "texts to embed with emoji": (EMBEDDINGS, lambda: embedding_body(f'["{LONG_TEXT[:7_900_000]}{EMOJI}"]')),
    "too many texts to embed": (EMBEDDINGS, lambda: embedding_body(f"[{repeat(LETTER, INPUTS)}]")),
    "pictures that are none": (EDITS, lambda: image_body(f'"prompt":"p","images":[{repeat(EMPTY, 2400)}]')),
    "a long prompt": (GENERATIONS, lambda: image_body(f'"prompt":"{LONG_TEXT}"')),
}
"""Bodies just within the limits, with their paths. The answer is 200, or 400 where a field is wrong."""

_LISTS, _NUMBER = repeat("[]", 10_000_000), "9" * 4299

REFUSED: Mapping[str, tuple[str, Callable[[], bytes], str]] = {
    "lists in an unknown field": (CHAT, lambda: chat_body(f'"x":[{_LISTS}]'), "150000"),
    "messages that are none": (CHAT, lambda: chat_messages_body(_LISTS), "150000"),
    "messages": (CHAT, lambda: chat_messages_body(repeat(user_message(LETTER), 900_000)), "150000"),
    "parts": (CHAT, lambda: chat_messages_body(user_message(f"[{repeat(PART, 1_000_000)}]")), "150000"),
    "calls": (CHAT, lambda: chat_messages_body(tool_call_message(EMPTY, 500_000)), "150000"),
    "tools that are none": (CHAT, lambda: chat_body(f'"tools":[{repeat(EMPTY, 10_000_000)}]'), "150000"),
    "a large tool": (CHAT, lambda: tools_body(1, 2_000_000), "150000"),
    "biases that are wrong": (
        CHAT,
        lambda: chat_body(f'"logit_bias":{{{object_members(2_000_000, EMPTY_STRING)}}}'),
        "150000",
    ),
    "unknown fields": (CHAT, lambda: chat_body(object_members(2_500_000)), "150000"),
    "names that come again": (CHAT, lambda: chat_body(repeat('"u":1', 4_900_000)), "150000"),
    "lists in arguments": (
        CHAT,
        lambda: chat_messages_body(tool_call_message('{"a":[' + _LISTS + "]}")),
        "'messages'.*150000",
    ),
    "lists in the arguments of many calls": (
        CHAT,
        lambda: chat_messages_body(*[tool_call_message('{"a":[' + repeat("[]", 10_000) + "]}")] * 900),
        "'messages'.*150000",
    ),
    "a schema in a text": (CHAT, lambda: chat_body(f'"guided_json":"{{\\"enum\\":[{_LISTS}]}}"'), "1048576 characters"),
    "values behind strings that look like values": (
        CHAT,
        lambda: chat_body(f'"x":"{",[{" * 100_000}","y":"\\\\","z":[{repeat(QUOTE, 5_000_000)}]'),
        "150000",
    ),
    "long numbers": (CHAT, lambda: chat_body(f'"x":[{repeat(_NUMBER, 7000)}]'), "512 digits"),
    "long numbers in arguments": (
        CHAT,
        lambda: chat_messages_body(tool_call_message('{"a":[' + repeat(_NUMBER, 7000) + "]}")),
        "512 digits",
    ),
    "a text": (CHAT, lambda: chat_messages_body(user_message(f'"{LONG_TEXT}"')), "8000000 characters"),
    "a text and an emoji": (
        CHAT,
        lambda: chat_messages_body(user_message(f'"{LONG_TEXT}{EMOJI}"')),
        "8000000 characters",
    ),
    "a long description of a tool": (
        CHAT,
        lambda: tools_body(1, 1).replace(b'"name"', b'"description":"' + LONG_TEXT.encode() + b'","name"'),
        "4000000 bytes",
    ),
    "a long word in a schema": (CHAT, lambda: schema_body(f'{{"const":"{LONG_TEXT}"}}'), "262144 characters"),
    "a long expression": (CHAT, lambda: chat_body(f'"guided_regex":"{EMOJI * 7_000_000}"'), "262144 characters"),
    "a long argument of the template": (
        CHAT,
        lambda: chat_body(f'"chat_template_kwargs":{{"a":"{LONG_TEXT}"}}'),
        "1000000 bytes",
    ),
    "token ids": (COMPLETIONS, lambda: completion_body(f"[{repeat('12345', 5_000_000)}]"), "600000"),
    "lists as prompts": (COMPLETIONS, lambda: completion_body(f"[{_LISTS}]"), "100000"),
    "an echo to many answers": (
        COMPLETIONS,
        lambda: completion_body(f'"{LONG_TEXT[:7_000_000]}","echo":true,"n":128'),
        "'echo'.*8000000",
    ),
    "a long prompt": (COMPLETIONS, lambda: completion_body(f'"{LONG_TEXT}"'), "8000000 characters"),
    "ids to embed": (EMBEDDINGS, lambda: embedding_body(f"[{repeat('12345', 5_000_000)}]"), "1100000"),
    "a long text to embed": (EMBEDDINGS, lambda: embedding_body(f'"{LONG_TEXT}"'), "8000000 characters"),
    "pictures that are none": (EDITS, lambda: image_body(f'"prompt":"p","images":[{_LISTS}]'), "5000"),
}
"""Bodies of up to 30 MB beyond a limit: the path, the body, and a pattern of the error message."""

_PLAIN = "multipart/form-data; boundary=b"
_LETTERS = "ö".encode() * 15_000_000
_PUNYCODE = b"a-" + b"b" * 3 * MB

FORMS: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "punycode": (f"{_PLAIN}; charset=punycode", lambda: form_body(_PUNYCODE)),
    "punycode of a part": (
        _PLAIN,
        lambda: form_body(_PUNYCODE, more=b"Content-Type: text/plain; charset=punycode\r\n"),
    ),
    "punycode in _charset_": (_PLAIN, lambda: form_body(b"punycode", name=b"_charset_")),
    "a long text": (_PLAIN, lambda: form_body(_LETTERS)),
    "a long number": (_PLAIN, lambda: form_body(_LETTERS, name=b"n")),
    "a number of lists": (_PLAIN, lambda: form_body(b"[[]" + b",[]" * 10_000_000 + b"]", name=b"n")),
    "lines that begin as the boundary does": (_PLAIN, lambda: form_body(b"\r\n--bX" * 5_000_000)),
    "padding": (_PLAIN, lambda: form_body(b"\r\n--b" + b" " * 30_000_000)),
    "paddings": (_PLAIN, lambda: form_body((b"\r\n--b" + b" " * 60) * 450_000)),
    "line breaks": (_PLAIN, lambda: form_body(b"\r\n" * 15_000_000)),
    "parts": (_PLAIN, lambda: b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n" * 600_000),
    "headers": (_PLAIN, lambda: b"--b\r\n" + b"X: y\r\n" * 5_000_000),
}
"""Forms that would be expensive for a naive parser: the content type and the body. All are refused with 400."""
