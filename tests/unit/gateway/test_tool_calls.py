"""Every format against what its models write, whole and cut in every way."""

import pytest

from gateway.prompting.tool_calls import PARSERS, CallArguments, CallBegin, Piece, Text
from tests.unit.gateway.tool_call_parsing import PARSER_FACTORIES, call, parse

# `None`: it is all text.
CASES: list[tuple[str, str, list[Piece] | None]] = [
    ("hermes", '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>', call(0, "f", '{"a": 1}')),
    (
        "hermes",
        'Let me look.\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\n'
        '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>\n',
        [Text("Let me look."), *call(0, "f"), *call(1, "g")],
    ),
    (
        "hermes",
        '<tool_call>{"name": "f", "arguments": {}}</tool_call>\nand\n<tool_call>{"name": "g"}</tool_call> done ',
        [*call(0, "f"), Text("\nand"), *call(1, "g"), Text(" done ")],
    ),
    ("hermes", '<tool_call>{"arguments": {"a": [1]}, "name": "f"}</tool_call>', call(0, "f", '{"a": [1]}')),
    ("hermes", '<tool_call>{"name": "f", "parameters": {"a": 1}}', call(0, "f", '{"a": 1}')),
    ("hermes", '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', call(0, "f", '{"a": 1}')),
    ("hermes", '<tool_call>{"name": "f", "arguments": ""}</tool_call>', call(0, "f")),
    ("hermes", '<tool_call>{"name": "f", "arguments": null}</tool_call>', call(0, "f")),
    ("hermes", '<tool_call>{"n\\u0061me": "\\u0066", "arguments": {}, "x": [{}]}</tool_call>', call(0, "f")),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"name": "g"}}</tool_call>', call(0, "f", '{"name": "g"}')),
    (
        "hermes",
        '<tool_call>{"name": "f", "arguments": {"a": "</tool_call>{\\"}"}}</tool_call>',
        call(0, "f", '{"a": "</tool_call>{\\"}"}'),
    ),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "1\n2"}}</tool_call>', call(0, "f", '{"a": "1\\n2"}')),
    # Cut off, before and after the call has begun.
    ("hermes", '<tool_call>{"name": "f", "arg', [Text('<tool_call>{"name": "f", "arg')]),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "b', call(0, "f", '{"a": "b')),
    # Broken.
    ("hermes", '<tool_call>{"name": "f", "arguments": {}</tool_call>', call(0, "f")),
    ("hermes", '<tool_call>{"name": "f", "arguments": {}}}\n</tool_call>', call(0, "f")),
    (
        "hermes",
        '<tool_call>{"name": "f", "arguments": {"a": b}}\n</tool_call>\nyes',
        [*call(0, "f", '{"a": b}}'), Text("\nyes")],
    ),
    ("hermes", '<tool_call>{"name": 1, "arguments": {}}</tool_call>', None),
    ("hermes", '<tool_call>{"name": "", "arguments": {}}</tool_call>', None),
    ("hermes", '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>', None),
    ("hermes", '<tool_call>{"name": "f", "arguments": [1]}</tool_call>', None),
    ("hermes", '<tool_call>{"name": "f", "arguments": "[1]"}</tool_call>', None),
    ("hermes", '<tool_call>{"arguments": {}}</tool_call>', None),
    ("hermes", " \n<tool_call> is a tag, a <b> too; 1 < 2 <tool_ca", None),
    ("hermes", '<tool_call><tool_call>{"name": "f"}', [Text("<tool_call>"), *call(0, "f")]),
    ("hermes", "  \n", None),
    ("llama3_json", '{"name": "f", "parameters": {"a": 1}}', call(0, "f", '{"a": 1}')),
    ("llama3_json", '\n{"type": "function", "name": "f", "parameters": {}}\n', call(0, "f")),
    ("llama3_json", '<|python_tag|>{"name": "f", "parameters": {}}', call(0, "f")),
    ("llama3_json", 'Well. <|python_tag|>{"name": "f", "parameters": {}}', [Text("Well."), *call(0, "f")]),
    (
        "llama3_json",
        '{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}\n{"name": "h", "arguments": {}};',
        [*call(0, "f"), *call(1, "g"), *call(2, "h")],
    ),
    (
        "llama3_json",
        '{"name": "f", "parameters": {}}; then {"name": "g", "parameters": {}}',
        [*call(0, "f"), Text('; then {"name": "g", "parameters": {}}')],
    ),
    ("llama3_json", '{"name": "Bob", "age": 3}', None),
    ("llama3_json", '{"name": "Bob"}', None),
    ("llama3_json", '{"a": {"name": "f", "parameters": {}}}', None),
    ("llama3_json", "{ braces }", None),
    ("llama3_json", '<|python_tag|>print("{}")', None),
    ("llama3_json", "<|python", None),
    (
        "mistral",
        '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"arguments": {}, "name": "g", "id": "x"}]\n',
        [*call(0, "f", '{"a": 1}'), *call(1, "g")],
    ),
    ("mistral", '[{"name": "f", "arguments": {}}]', call(0, "f")),
    ("mistral", 'Hm.[TOOL_CALLS][{"name": "f", "arguments": {}}] so', [Text("Hm."), *call(0, "f"), Text(" so")]),
    (
        "mistral",
        'Hm.[TOOL_CALLS]a-b_c{"a": 1}[TOOL_CALLS]g[ARGS]{}[TOOL_CALLS]h[CALL_ID]9aB[ARGS]{"b": 2}',
        [Text("Hm."), *call(0, "a-b_c", '{"a": 1}'), *call(1, "g"), *call(2, "h", '{"b": 2}')],
    ),
    ("mistral", '[TOOL_CALLS]f{"a": x}[TOOL_CALLS]g{}', [*call(0, "f", '{"a": x}'), *call(1, "g")]),
    ("mistral", '[{"name": "f", "arguments": {}}, 2]', [*call(0, "f"), Text(", 2]")]),
    ("mistral", "[1] and [TOOL_CALLS] and [TOOL_", None),
    ("mistral", '[{"a": 1}]', None),
    ("mistral", "[TOOL_CALLS]f[ARGS]", None),
    (
        "pythonic",
        '[get_weather(city="Paris", days=3), other(x=[1,2], y={"a": None})]',
        [*call(0, "get_weather", '{"city": "Paris", "days": 3}'), *call(1, "other", '{"x": [1, 2], "y": {"a": null}}')],
    ),
    (
        "pythonic",
        "\n[a.f(x=-1.5, y=(True, false), z='\"é\\n')] \n",
        call(0, "a.f", r'{"x": -1.5, "y": [true, false], "z": "\"é\n"}'),
    ),
    ("pythonic", "<|python_start|>[f()]<|python_end|>", call(0, "f")),
    ("pythonic", r"[f(a='\ud800')]", call(0, "f", r'{"a": "\ud800"}')),
    ("pythonic", "[f(1)]", None),
    ("pythonic", "[f(**{})]", None),
    ("pythonic", "[f(a=1e999)]", None),
    ("pythonic", "[f(a=open('x'))]", None),
    ("pythonic", "[f(a=b'x')]", None),
    ("pythonic", "[f(a={1, 2})]", None),
    ("pythonic", "[f(a={**{}})]", None),
    ("pythonic", "[f(), 2]", None),
    ("pythonic", "[]", None),
    ("pythonic", "[main()](main.py)", None),
    ("pythonic", "[see](http://a) f(a=1)", None),
    ("pythonic", "[f(a='", None),
    (
        "forced",
        ' [{"name": "f", "arguments": {"a": 1}},\n{"name": "g", "arguments": {}}]\n',
        [*call(0, "f", '{"a": 1}'), *call(1, "g")],
    ),
    ("forced", '[{"name": "f", "arguments": {"a": ', call(0, "f", '{"a": ')),
    ("forced", "no [", None),
    ("forced", "[]", None),
    ("named", ' {"a": {"b": []}} ', call(0, "f", '{"a": {"b": []}}')),
    ("named", '{"a": ', call(0, "f", '{"a": ')),
    ("named", "no", None),
]


@pytest.mark.parametrize(("format", "answer", "expected"), CASES)
def test_calls_are_separated_from_text(format: str, answer: str, expected: list[Piece] | None) -> None:
    expected_pieces = [Text(answer)] if expected is None else expected
    assert parse(format, [answer]) == expected_pieces
    assert parse(format, answer) == expected_pieces
    for cut in range(1, len(answer)):
        assert parse(format, [answer[:cut], answer[cut:]]) == expected_pieces


def test_holds_text_back_only_while_it_may_be_a_marker() -> None:
    parser = PARSERS["hermes"]()
    assert list(parser.feed("a <")) == [Text("a")]
    assert list(parser.feed("tool")) == []
    assert list(parser.feed("s> b")) == [Text(" <tools> b")]
    json_answer = PARSERS["llama3_json"]()
    assert list(json_answer.feed('{"age"')) == [Text('{"age"')]
    link = PARSERS["pythonic"]()
    assert list(link.feed("[here]")) == [Text("[here]")]


@pytest.mark.parametrize(
    ("format", "head"),
    [
        ("hermes", '<tool_call>{"name": "f", "arguments": '),
        ("llama3_json", '{"name": "f", "parameters": '),
        ("mistral", '[TOOL_CALLS][{"name": "f", "arguments": '),
        ("mistral", "[TOOL_CALLS]f"),
        ("forced", '[{"name": "f", "arguments": '),
        ("named", ""),
    ],
)
def test_passes_arguments_on_as_they_arrive(format: str, head: str) -> None:
    parser = PARSER_FACTORIES[format]()
    assert list(parser.feed(head)) == []
    assert list(parser.feed('{"a": "')) == [CallBegin(0, "f"), CallArguments(0, '{"a": "')]
    for character in "Paris, 12":
        assert list(parser.feed(character)) == [CallArguments(0, character)]
    assert list(parser.feed('"}')) == [CallArguments(0, '"}')]
