"""Normalized schemas: every answer is valid under the caller's schema, and refusals name keyword and location."""

import json
import random
import re
import time
from typing import Any

import jsonschema
import pytest

from backends.llm.structured_outputs.json_schema import normalize_schema
from tests.unit.llm.json_schema.cases import AB, CASES
from tests.unit.llm.json_schema.corpus import CORPUS, PYDANTIC, Cat, Meeting, Owner, Tree
from tests.unit.llm.json_schema.random_answers import accepts, compile_schema, random_answer


def unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), f"a key is repeated: {pairs}"
    return dict(pairs)


@pytest.mark.parametrize("name", CORPUS)
def test_every_answer_is_valid(name: str) -> None:
    schema = CORPUS[name]
    validator = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)(schema)
    matcher, rng = compile_schema(schema), random.Random(1)
    for _ in range(15):
        validator.validate(json.loads(random_answer(matcher, rng), object_pairs_hook=unique_members))


@pytest.mark.parametrize("model", [Owner, Tree, Cat, Meeting])
def test_pydantic_models_parse_their_answers(model: Any) -> None:
    matcher, rng = compile_schema(PYDANTIC[model.__name__]), random.Random(2)
    for _ in range(15):
        model.model_validate_json(random_answer(matcher, rng))


@pytest.mark.parametrize(("schema", "accepted", "rejected"), CASES, ids=[json.dumps(case[0])[:60] for case in CASES])
def test_answers_accepted_and_rejected_by_a_schema(schema: Any, accepted: list[str], rejected: list[str]) -> None:
    assert [text for text in accepted if not accepts(schema, text)] == []
    assert [text for text in rejected if accepts(schema, text)] == []


@pytest.mark.parametrize(
    ("schema", "keyword", "pointer"),
    [
        (
            {"properties": {"a/b": {"uniqueItems": True, "items": {"type": "string"}}}},
            "uniqueItems",
            "#/properties/a~1b",
        ),
        ({"type": "array", "uniqueItems": True, "items": {"enum": list("abcdefgh")}}, "uniqueItems", "#"),
        ({"items": {"contains": {"type": "string"}}}, "contains", "#/items"),
        ({"$defs": {"x": {"not": {"pattern": "a"}}}, "items": {"$ref": "#/$defs/x"}}, "not", "#/$defs/x"),
        ({"if": {"minLength": 3}, "then": {"maxLength": 2}}, "if", "#"),
        ({"oneOf": [{"type": "string"}, {"type": "string", "format": "date"}]}, "oneOf", "#"),
        ({"oneOf": [AB, AB | {"required": ["a"]}]}, "oneOf", "#"),
        ({"properties": {"a": {"type": "nonsense"}}}, "type", "#/properties/a"),
        ({"properties": {"a": {"required": True}}}, "required", "#/properties/a"),
        ({"items": {"maxItems": 1.5}}, "maxItems", "#/items"),
        ({"items": {"maxItems": float("inf")}}, "maxItems", "#/items"),
        ({"items": {"minimum": "1"}}, "minimum", "#/items"),
        ({"items": {"pattern": "a(?=b)"}}, "pattern", "#/items"),
        ({"items": {"$ref": "#/$defs/gone"}}, "$ref", "#/items"),
        ({"items": {"$ref": "#gone"}}, "$ref", "#/items"),
        ({"items": {"$ref": "https://example.com/x.json"}}, "$ref", "#/items"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "$ref", "#"),
        (
            {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}, "$ref": "#/$defs/a"},
            "$ref",
            "#/$defs/a/allOf/0",
        ),
        ({"enum": []}, "enum", "#"),
        ({"const": 2**63}, "const", "#"),
        ({"type": "integer", "minimum": 1e20}, "minimum", "#"),
        ({"type": "object", "minProperties": 2}, "minProperties", "#"),
        ({"type": "object", "propertyNames": {"minLength": 1, "pattern": "a"}}, "propertyNames", "#/propertyNames"),
    ],
)
def test_refusal_names_keyword_and_pointer(schema: Any, keyword: str, pointer: str) -> None:
    with pytest.raises(ValueError, match=f"^'{re.escape(keyword)}' at '{re.escape(pointer)}' "):
        normalize_schema(schema)


def test_look_around_replacements_match_no_more_than_the_originals() -> None:
    """A replacement of a look-around matches only what the library's own expression matches."""
    decimals = [
        r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$",
        r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,3}|(?=[\d.]{1,6}0*$)\d{0,3}\.\d{0,2}0*$)",
        r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,0}|(?=[\d.]{1,3}0*$)\d{0,0}\.\d{0,2}0*$)",
        r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,5}|(?=[\d.]{1,6}0*$)\d*\.\d*0*$)",
        r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d{0,2}0*$",
    ]
    mail = CORPUS["zod 4 object"]["properties"]["mail"]["pattern"]
    rng = random.Random(3)
    for text in [*decimals, mail]:
        matcher = compile_schema({"type": "string", "pattern": text, "maxLength": 20})
        for _ in range(60):
            answer = json.loads(random_answer(matcher, rng))
            assert re.search(text, answer), (text, answer)
    assert accepts({"type": "string", "pattern": mail}, '"a.b+c@d-e.example.org"')


def schemas_with_many_references() -> dict[str, Any]:
    """Return schemas that grow exponentially when their references are expanded."""
    last: dict[str, Any] = {"d60": {"type": "object"}}
    twice = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(60)}
    either = {
        f"d{i}": {"properties": {"k": {"const": i}}, "anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(60)
    }
    one_of = {f"d{i}": {"oneOf": [{"$ref": f"#/$defs/d{(i * 7 + j) % 60}"} for j in range(20)]} for i in range(60)}
    by_keyword = {"allOf": twice | last, "anyOf": either | last, "oneOf": one_of}
    return {name: {"$ref": "#/$defs/d0", "$defs": definitions} for name, definitions in by_keyword.items()}


@pytest.mark.parametrize("name", schemas_with_many_references())
def test_references_take_bounded_processor_time(name: str) -> None:
    started = time.thread_time()
    with pytest.raises(ValueError):
        normalize_schema(schemas_with_many_references()[name])
    assert time.thread_time() - started < 5


@pytest.mark.parametrize(
    ("schema", "refused"),
    [
        ({"type": "array", "items": {"enum": list(range(5000))}, "uniqueItems": True}, True),
        ({"additionalProperties": False, "properties": {f"p{i}": {} for i in range(5000)}, "minProperties": 9}, True),
        ({"type": "object", "dependentRequired": {f"p{i}": [f"q{i}"] for i in range(700)}}, False),
    ],
    ids=["uniqueItems", "minProperties", "dependentRequired"],
)
def test_large_schemas_take_bounded_processor_time(schema: Any, refused: bool) -> None:
    started = time.thread_time()
    if refused:
        with pytest.raises(ValueError, match="more than 128 sets"):
            normalize_schema(schema)
    else:
        normalize_schema(schema)
    assert time.thread_time() - started < 0.7


def test_ordinary_schemas_take_little_processor_time() -> None:
    members = {f"field_{number}": {"type": "string", "description": "x"} for number in range(200)}
    started = time.thread_time()
    normalize_schema({"type": "object", "properties": members, "required": list(members)})
    assert time.thread_time() - started < 0.5
