"""The Lark text of a structure accepts the answers that its grammar accepts, and no others."""

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer, grammar_from

from backends.llm.structured_outputs.lark_text import to_lark
from backends.llm.structured_outputs.llguidance_grammar import to_llguidance
from tests.unit.llm.json_schema import corpus

BYTES = LLTokenizer("byte")

TAG = {
    "type": "structural_tag",
    "format": {
        "type": "sequence",
        "elements": [
            {"type": "const_string", "value": '@json0 "x"'},
            {"type": "json_schema", "json_schema": {"type": "integer"}},
            {"type": "regex", "pattern": "a/b|@regex1"},
        ],
    },
}
PERSON = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
CASES: list[tuple[str, Any, list[str], list[str]]] = [
    ("json", PERSON, ['{"a":"x"}', '{"a":"\\n"}'], ['{"a": "x"}', '{"b":"x"}', "{}"]),
    ("json", True, ['{"a":[1]}', "null"], ['{"a": [1]}']),
    ("regex", r'a/b\/"c\n[/]', ['a/b/"c\n/'], ["a/b"]),
    ("regex", "(東|é){2}", ["東é"], ["東"]),
    ("choice", ["yes", 'n"o', "@json0"], ["yes", 'n"o', "@json0"], ["no"]),
    ("grammar", '?start: "x" y\ny: /[0-9]+/', ["x12"], ["x"]),
    ("grammar", 'root ::= "x" | "y"', ["x", "y"], ["z"]),
    ("structural_tag", TAG, ['@json0 "x"12a/b', '@json0 "x"0@regex1'], ['@json0 "x"a/b', 'json0 "x"12a/b']),
]


def accepts(grammar: str, text: str) -> bool:
    matcher = LLMatcher(BYTES, grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    tokens = BYTES.tokenize_bytes(text.encode())
    return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())


@pytest.mark.parametrize(("kind", "structure", "valid", "invalid"), CASES)
def test_a_lark_text_accepts_what_its_grammar_accepts(
    kind: str, structure: Any, valid: list[str], invalid: list[str]
) -> None:
    text = structure if kind in ("regex", "grammar") else json.dumps(structure)
    ours, theirs = to_llguidance(kind, text), grammar_from("grammar", to_lark(kind, text))
    for answers, expected in ((valid, True), (invalid, False)):
        for answer in answers:
            assert accepts(ours, answer) is expected, answer
            assert accepts(theirs, answer) is expected, answer


@pytest.mark.parametrize("group", ["PYDANTIC", "ZOD", "OPENAPI", "KEYWORDS"])
def test_schemas_of_libraries_are_one_lark_text_each(group: str) -> None:
    for name, schema in getattr(corpus, group).items():
        text = to_lark("json", json.dumps(schema))
        assert not LLMatcher.validate_grammar(grammar_from("grammar", text)), name
