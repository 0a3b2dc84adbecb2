"""Every format against what its models write, whole and cut in every way."""

import json
from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.prompting.tool_calls import (
    PARSERS,
    CallArguments,
    CallBegin,
    ForcedCalls,
    NamedCall,
    Parser,
    Piece,
    Text,
)
from gateway.prompting.tool_calls.grammar import joined

NEW: dict[str, Callable[[], Parser]] = {**PARSERS, "forced": ForcedCalls, "named": lambda: NamedCall("f")}
DISTINCT = ["hermes", "llama3_json", "mistral", "pythonic", "forced", "named"]


def read(format: str, deltas: Iterable[str]) -> list[Piece]:
    parser = NEW[format]()
    pieces = [piece for delta in deltas for piece in parser.feed(delta)]
    return list(joined([*pieces, *parser.finish()]))


def call(number: int, name: str, arguments: str = "{}") -> list[Piece]:
    return [CallBegin(number, name), CallArguments(number, arguments)]


def content(pieces: Iterable[Piece]) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, Text))


def called(pieces: Sequence[Piece]) -> list[tuple[str, object]]:
    """Names and parsed arguments, in order; fails on arguments that are not JSON."""
    names = {piece.call: piece.name for piece in pieces if isinstance(piece, CallBegin)}
    assert list(names) == list(range(len(names)))
    texts = dict.fromkeys(names, "")
    for piece in pieces:
        if isinstance(piece, CallArguments):
            texts[piece.call] += piece.text
    return [(names[number], json.loads(text)) for number, text in texts.items()]


CASES: list[tuple[str, str, list[Piece]]] = [
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
]  # type: ignore[list-item]


@pytest.mark.parametrize(("format", "answer", "expected"), CASES)
def test_tells_calls_from_text(format: str, answer: str, expected: list[Piece] | None) -> None:
    wanted = [Text(answer)] if expected is None else expected
    assert read(format, [answer]) == wanted
    assert read(format, answer) == wanted
    for cut in range(1, len(answer)):
        assert read(format, [answer[:cut], answer[cut:]]) == wanted


BITS = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_start|>"),
        *('{"name": "f", "arguments": ', '{"parameters": {}, "name": "g"}', '"name"', '"arguments"', '{"a": [1, "b"]}'),
        *(
            "{",
            "}",
            "[",
            "]",
            "(",
            ")",
            ",",
            ":",
            ";",
            '"',
            "'",
            "\\",
            "\n",
            " ",
            "<",
            "f",
            "f(a=1)",
            "-0.5e3",
            "é",
            "null",
        ),
        *("{}", "}}", "[{", "}]", "\x00", "\ud800", " " * 70),
    ]
)
ANSWERS = st.lists(BITS | st.text(max_size=4), max_size=14).map("".join)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(DISTINCT), ANSWERS, st.lists(st.integers(0, 200)))
def test_loses_nothing_however_an_answer_is_cut(format: str, answer: str, cuts: list[int]) -> None:
    whole = read(format, [answer])
    ends = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})
    assert read(format, [answer[a:b] for a, b in zip(ends, ends[1:], strict=False)]) == whole
    assert read(format, answer) == whole
    if not any(isinstance(piece, CallBegin) for piece in whole):
        assert content(whole) == answer


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,20}", fullmatch=True).filter(lambda name: name not in PYTHON_WORDS)
PYTHON_WORDS = {"and", "as", "if", "in", "is", "or", "not", "def", "del", "for", "try", "from", "pass", "elif", "else"}
CALLS = st.lists(st.tuples(NAMES, st.dictionaries(NAMES, VALUES, max_size=3)), min_size=1, max_size=3)


def as_json(name: str, arguments: object, key: str = "arguments") -> str:
    return json.dumps({"name": name, key: arguments}, ensure_ascii=False)


WRITERS: dict[str, Callable[[list[tuple[str, dict[str, object]]]], str]] = {
    "hermes": lambda calls: "\n".join(f"<tool_call>\n{as_json(*one)}\n</tool_call>" for one in calls),
    "llama3_json": lambda calls: "; ".join(as_json(*one, key="parameters") for one in calls),
    "mistral": lambda calls: "".join(f"[TOOL_CALLS]{name}[ARGS]{json.dumps(one)}" for name, one in calls),
    "mistral ": lambda calls: f"[TOOL_CALLS] [{', '.join(as_json(*one) for one in calls)}]",
    "pythonic": lambda calls: (
        "[" + ", ".join(f"{name}({', '.join(f'{k}={v!r}' for k, v in one.items())})" for name, one in calls) + "]"
    ),
    "forced": lambda calls: json.dumps([{"name": name, "arguments": one} for name, one in calls], indent=1),
}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(WRITERS)), CALLS, st.integers(1, 9))
def test_reads_what_was_written(writer: str, calls: list[tuple[str, dict[str, object]]], size: int) -> None:
    answer = WRITERS[writer](calls)
    pieces = read(writer.strip(), [answer[at : at + size] for at in range(0, len(answer), size)])
    assert called(pieces) == calls
    assert content(pieces) == ""


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
    parser = NEW[format]()
    assert list(parser.feed(head)) == []
    assert list(parser.feed('{"a": "')) == [CallBegin(0, "f"), CallArguments(0, '{"a": "')]
    for character in "Paris, 12":
        assert list(parser.feed(character)) == [CallArguments(0, character)]
    assert list(parser.feed('"}')) == [CallArguments(0, '"}')]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("format", "answer"),
    [
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "' + "x" * 200_000 + '"}}</tool_call>'),
        ("hermes", '<tool_call>{"arguments": {"a": "' + "x" * 200_000 + '"}, "name": "f"}</tool_call>'),
        ("mistral", '[TOOL_CALLS]f{"a": [' + "1," * 100_000 + "1]}"),
        ("llama3_json", '{"name": "f", "parameters": {"a": ' + "[" * 100_000 + "]" * 100_000 + "}}"),
        ("hermes", '<tool_call>{"name": "' + "f" * 200_000 + '", "arguments": {}}</tool_call>'),
        ("pythonic", "[f(a='" + "x" * 200_000 + "')]"),
    ],
)
def test_long_and_deep_calls_cost_no_more_than_their_length(format: str, answer: str) -> None:
    pieces = read(format, answer)
    assert pieces == read(format, [answer])
    assert [type(piece) for piece in pieces] == [CallBegin, CallArguments]
    assert isinstance(pieces[1], CallArguments)
    assert pieces[1].text in answer.replace("'", '"').replace("a=", '{"a": ').replace('")]', '"}')


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "value", ["[" * 100_000, "-" * 200_000 + "1", "1+" * 100_000 + "1", "b." * 100_000 + "b", "9" * 200_000]
)
def test_python_that_is_no_literal_is_text(value: str) -> None:
    answer = f"[f(a={value})]"
    assert read("pythonic", [answer]) == [Text(answer)]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "bit", ["<tool_call>", "<tool_call>{", ' "', "<|python_tag|>{", "[TOOL_CALLS][{", "[TOOL_CALLS]f"]
)
@pytest.mark.parametrize("format", DISTINCT)
def test_markers_without_calls_are_text(format: str, bit: str) -> None:
    answer = bit * (100_000 // len(bit))
    assert content(read(format, answer)) == content(read(format, [answer])) == answer
