"""Properties of every answer in every tool format, and the cost of long and hostile ones."""

import json
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.prompting.tool_calls import CallArguments, CallBegin, Text
from tests.unit.gateway.tool_call_parsing import DISTINCT, parse, text_of, tool_calls_of

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
def test_any_split_of_an_answer_loses_nothing(format: str, answer: str, cuts: list[int]) -> None:
    whole = parse(format, [answer])
    ends = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})
    assert parse(format, [answer[a:b] for a, b in pairwise(ends)]) == whole
    assert parse(format, answer) == whole
    if not any(isinstance(piece, CallBegin) for piece in whole):
        assert text_of(whole) == answer


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
PYTHON_WORDS = {"and", "as", "if", "in", "is", "or", "not", "def", "del", "for", "try", "from", "pass", "elif", "else"}
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,20}", fullmatch=True).filter(lambda name: name not in PYTHON_WORDS)
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
def test_written_calls_are_parsed(writer: str, calls: list[tuple[str, dict[str, object]]], size: int) -> None:
    answer = WRITERS[writer](calls)
    pieces = parse(writer.strip(), [answer[at : at + size] for at in range(0, len(answer), size)])
    assert tool_calls_of(pieces) == calls
    assert text_of(pieces) == ""


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
    pieces = parse(format, answer)
    assert pieces == parse(format, [answer])
    assert [type(piece) for piece in pieces] == [CallBegin, CallArguments]
    assert isinstance(pieces[1], CallArguments)
    assert pieces[1].text in answer.replace("'", '"').replace("a=", '{"a": ').replace('")]', '"}')


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "value", ["[" * 100_000, "-" * 200_000 + "1", "1+" * 100_000 + "1", "b." * 100_000 + "b", "9" * 200_000]
)
def test_python_that_is_no_literal_is_text(value: str) -> None:
    answer = f"[f(a={value})]"
    assert parse("pythonic", [answer]) == [Text(answer)]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "bit",
    ["<tool_call>", "<tool_call>{", ' "', "<|python_tag|>{", "[TOOL_CALLS][{", "[TOOL_CALLS]f", ' [{"arguments":['],
)
@pytest.mark.parametrize("format", DISTINCT)
def test_markers_without_calls_are_text(format: str, bit: str) -> None:
    answer = bit * (100_000 // len(bit))
    assert text_of(parse(format, answer)) == text_of(parse(format, [answer])) == answer
