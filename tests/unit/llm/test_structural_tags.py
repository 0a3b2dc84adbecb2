"""Structural tags: the answers that they allow, and refusals of unsupported parts."""

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from backends.llm.sampling_params import parse_sampling_params
from backends.llm.structured_outputs.llguidance_grammar import explain_compile_error, to_llguidance
from backends.serving.errors import InvalidValue

NUMBER: dict[str, Any] = {"type": "json_schema", "json_schema": {"type": "integer", "minimum": 0, "maximum": 99}}
TAGS = [{"type": "tag", "begin": f"<{name}>", "content": NUMBER, "end": f"</{name}>"} for name in "ab"]


@pytest.fixture(scope="module")
def bytes_tokenizer():
    return LLTokenizer("byte")


def tag(part):
    return json.dumps({"type": "structural_tag", "format": part})


def separated_tags(**options):
    return {"type": "tags_with_separator", "tags": TAGS, "separator": ", ", "at_least_one": True, **options}


def accepts(tokenizer, part, answer):
    matcher = LLMatcher(tokenizer, to_llguidance("structural_tag", tag(part)))
    assert not matcher.is_error(), matcher.get_error()
    tokens = tokenizer.tokenize_str(answer)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def test_or_accepts_each_of_its_elements(bytes_tokenizer):
    words = {"type": "const_string", "value": 'a "\x7f\n'}
    letters = {"type": "regex", "pattern": "[p-q]+"}
    part = {"type": "or", "elements": [separated_tags(), NUMBER, words, letters]}
    for answer in ("<a>5</a>", "<b>5</b>, <a>12</a>", "12", 'a "\x7f\n', "pq"):
        assert accepts(bytes_tokenizer, part, answer), answer
    for answer in ("<a>x</a>", "<a>5</b>", "<a>5</a><a>5</a>", "<a>5</a>, ", "100", "x", "", "5pq"):
        assert not accepts(bytes_tokenizer, part, answer), answer


def test_tags_can_stop_after_the_first_and_are_limited(bytes_tokenizer):
    assert not accepts(bytes_tokenizer, separated_tags(stop_after_first=True), "<a>5</a>, <a>5</a>")
    assert accepts(bytes_tokenizer, separated_tags(), ", ".join(["<a>5</a>"] * 16))
    assert not accepts(bytes_tokenizer, separated_tags(), ", ".join(["<a>5</a>"] * 17))


def test_sequence_requires_all_of_its_elements(bytes_tokenizer):
    part = {"type": "sequence", "elements": [{"type": "const_string", "value": "["}, separated_tags(), NUMBER]}
    assert accepts(bytes_tokenizer, part, "[<a>5</a>7")
    assert not accepts(bytes_tokenizer, part, "[<a>5</a>")


def nested_part(levels):
    part = NUMBER
    for _ in range(levels):
        part = {"type": "or", "elements": [part]}
    return part


@pytest.mark.parametrize(
    "part",
    [
        None,
        [],
        {"type": "any_text"},
        {"type": "x" * 10_000},
        {"type": ["or"]},
        {"type": "or", "elements": []},
        {"type": "or"},
        {"type": "const_string", "value": ""},
        {"type": "regex", "pattern": 5},
        {"type": "tag", "begin": "", "content": NUMBER, "end": ""},
        {"type": "tag", "begin": "a", "end": ""},
        {"type": "json_schema", "json_schema": False},
        separated_tags(at_least_one=False),
        nested_part(17),
    ],
    ids=str,
)
def test_unsupported_parts_are_refused(part):
    with pytest.raises(ValueError) as raised:
        to_llguidance("structural_tag", tag(part))
    assert len(str(raised.value)) < 500


def test_structural_tag_is_json_in_a_string():
    parsed = parse_sampling_params(json.dumps({"structured_outputs": {"structural_tag": tag(NUMBER)}}), 259)
    assert parsed.structured_outputs is not None and parsed.structured_outputs.kind == "structural_tag"
    for invalid in ("[]", "{}", '{"type": "structural_tag"}'):
        with pytest.raises(ValueError):
            to_llguidance("structural_tag", invalid)
    with pytest.raises(InvalidValue):
        parse_sampling_params(json.dumps({"structured_outputs": {"structural_tag": {"type": "structural_tag"}}}), 259)


def test_compile_error_names_the_location_in_the_schema(bytes_tokenizer):
    invalid_pattern = {"type": "object", "properties": {"b": {"type": "string", "pattern": "a("}}}
    for schema, message in (
        (invalid_pattern, "'pattern' at '#/properties/b'"),
        ({"type": "string", "minLength": 2, "maxLength": 1}, "no value satisfies"),
    ):
        text = tag({"type": "or", "elements": [separated_tags(), {"type": "json_schema", "json_schema": schema}]})
        matcher = LLMatcher(bytes_tokenizer, to_llguidance("structural_tag", text), log_level=0)
        assert message in explain_compile_error("structural_tag", text, matcher.get_error())
