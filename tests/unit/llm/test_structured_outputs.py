"""Structured outputs through an engine: what a grammar allows, and which structures are refused."""

import json
import re
from contextlib import suppress
from typing import Any

import jsonschema
import psutil
import pytest

from backends.llm.sampling_params import parse_sampling_params
from backends.llm.structured_outputs.grammar_compiler import GrammarCompiler
from backends.serving.errors import InvalidValue

PROMPT = [10, 20, 30]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 99, "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


IMPOSSIBLE = {"type": "string", "minLength": 5, "maxLength": 2}


@pytest.fixture
def compiler(scripted_engine, tokenizer):  # torn down before the engines, which assert that no thread is left
    compiler = GrammarCompiler(tokenizer, 259, frozenset({1, 2}))
    yield compiler
    compiler.close()


def compile(compiler, **structure):
    params = parse_sampling_params(json.dumps({"structured_outputs": structure}), 259).structured_outputs
    return compiler.compile(params).result(60)


@pytest.fixture
def ask(compiler, scripted_engine, collect):
    """Return a function that generates an answer under a structure, on one engine for all."""
    engine, _ = scripted_engine()

    def ask(structure, **sampling):
        options = {"temperature": 1.0, "seed": 1, "max_tokens": 400} | sampling
        return collect(engine, PROMPT, compile(compiler, **structure), **options)

    return ask


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    "schema",
    [
        PERSON,
        {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
        {"enum": ["one", 2, None]},
        {"type": "string", "pattern": "^[a-z]{3}é$"},
    ],
)
def test_answers_follow_their_schema(ask, schema, temperature):
    for seed in range(3):
        collector = ask({"json": schema}, temperature=temperature, seed=seed).wait()
        jsonschema.validate(json.loads(collector.texts[0]), schema)
        assert collector.finish_reasons == ["stop"]


@pytest.mark.parametrize("begin", ["", '<call>{"a": '], ids=["alone", "tagged"])
def test_no_key_is_repeated(ask, tokenizer, begin):
    schema = {"type": "object", "propertyNames": {"pattern": "^[ab]{1,40}$"}, "additionalProperties": {"type": "null"}}

    def unique_members(pairs):
        assert len(dict(pairs)) == len(pairs), pairs
        counts.append(len(pairs))
        return dict(pairs)

    structure: dict[str, Any] = {"json": schema}
    if begin:
        content = {"type": "json_schema", "json_schema": schema}
        tag = {"type": "tag", "begin": begin, "content": content, "end": "}</call>"}
        structure = {"structural_tag": json.dumps({"type": "structural_tag", "format": tag})}
    counts: list[int] = []
    more_commas = ((tokenizer.token_to_id(","), 4.0),)
    for seed in range(16):
        text = ask(structure, seed=seed, max_tokens=200, logit_bias=more_commas).wait().texts[0]
        text = text.removeprefix(begin).removesuffix("}</call>")
        json.loads(text if text.endswith("}") else text.rpartition(",")[0] + "}", object_pairs_hook=unique_members)
    assert sum(counts) > 40, counts


def test_answers_follow_expressions_choices_and_grammars(ask):
    assert re.fullmatch(r"[0-9]{3}-[xyz]+", ask({"regex": r"[0-9]{3}-[xyz]{1,5}"}).wait().texts[0])
    assert ask({"choice": ["café", 'say "no"']}).wait().texts[0] in ("café", 'say "no"')
    assert ask({"grammar": 'start: "a" ("b" | "c") "d"'}).wait().texts[0] in ("abd", "acd")
    assert ask({"grammar": 'root ::= x "!"\nx ::= "yes" | "no"'}).wait().texts[0] in ("yes!", "no!")
    assert isinstance(json.loads(ask({"json": {"type": "object"}}, max_tokens=900, seed=4).wait().texts[0]), dict)


def test_each_answer_has_a_matcher_of_its_own(ask):
    collector = ask({"json": PERSON}, n=3).wait()
    for text in collector.texts:
        jsonschema.validate(json.loads(text), PERSON)
    assert len(set(collector.texts)) == 3


def test_answer_cut_by_max_tokens_has_finish_reason_length(ask):
    collector = ask({"regex": "a{50}"}, max_tokens=10).wait()
    assert (collector.texts, collector.finish_reasons) == (["a" * 10], ["length"])


def test_complete_answer_ends_despite_other_options(ask):
    for options in ({"min_tokens": 9}, {"ignore_eos": True}, {"min_tokens": 9, "stop_token_ids": (1,)}):
        collector = ask({"choice": ["ab"]}, **options).wait()
        assert (collector.texts, collector.finish_reasons, collector.num_tokens) == (["ab"], ["stop"], 2)


def test_min_tokens_ends_with_the_grammar(ask):
    collector = ask({"regex": "a{2,30}"}, min_tokens=20, temperature=0).wait()
    assert 20 <= len(collector.texts[0]) <= 30 and collector.finish_reasons == ["stop"]


def test_stop_string_applies_under_a_grammar(ask):
    collector = ask({"choice": ["abcdef"]}, stop=("cd",)).wait()
    assert (collector.texts, collector.finish_reasons) == (["ab"], ["stop"])


def test_logprobs_come_from_the_model_not_the_grammar(ask):
    collector = ask({"choice": ["zz"]}, logprobs=0).wait()
    logprobs = [entry[0].logprob for event in collector.events for entry in event.logprobs]
    assert len(logprobs) == 2 and max(logprobs) < -4  # under the grammar their probability is 1


@pytest.mark.parametrize(
    ("structure", "reason"),
    [
        ({"json": {"type": "string", "not": {"pattern": "a"}}}, "'not' at '#'"),
        ({"json": {"type": "object", "not": {}, "x-guidance": {"lenient": True}}}, "x-guidance"),
        ({"json": {"type": "nonsense"}}, "nonsense"),
        (
            {"json": {"items": {"pattern": "(a"}}},
            "'pattern' at '#/items' holds no expression that can be enforced: uncl",
        ),
        ({"json": {"patternProperties": {"(a": {}}}}, "'patternProperties' at '#' holds no expression"),
        ({"json": {"patternProperties": {"^a": {}, "b$": {}}}}, "could match the same name"),
        ({"json": {"type": "object", "required": ["a"], "properties": {"a": IMPOSSIBLE}}}, "required property 'a'"),
        ({"json": IMPOSSIBLE}, "its parts contradict each other"),
        ({"json": {"type": "number", "multipleOf": 0.123456789123}}, "'multipleOf' has too many digits"),
        ({"json": {"oneOf": [{"type": "object"}, {"type": "object"}]}}, "cannot be told apart"),
        ({"json": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}}, "no value matches it"),
        ({"json": {"$ref": "https://example.com/schema.json"}}, "example.com"),
        ({"json": False}, "allows nothing"),
        ({"regex": "(a"}, "unclosed group"),
        ({"regex": "(?=a)b"}, "look-around"),
        ({"grammar": "start: missing"}, "unknown name"),
        ({"grammar": "root ::= " + "(" * 900 + '"a"' + ")" * 900}, "recursion"),
        ({"grammar": "nothing of the kind"}, "Expected"),
    ],
)
def test_unenforceable_structure_is_refused_with_the_reason(compiler, structure, reason):
    with pytest.raises(InvalidValue) as raised:
        compile(compiler, **structure)
    assert str(raised.value).startswith("[invalid_value:structured_outputs] This cannot be enforced: ")
    assert reason in str(raised.value) and "<state>" not in str(raised.value)
    if "json" in structure:
        assert not re.search("nsatisfiable|nimplemented|coerce_one_of|lenient|[Ll]exer|regex", str(raised.value))


def nested_schema(levels):
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"anyOf": [schema, {"type": "object", "properties": {"k": schema}}]}
    return schema


@pytest.mark.parametrize(
    "structure",
    [
        {"json": nested_schema(11)},
        {"json": {"enum": [f"value number {number}" for number in range(8000)]}},
        {
            "json": {
                "allOf": [{"anyOf": [{"properties": {f"a{a}{b}": {"const": a}}} for a in range(6)]} for b in range(6)]
            }
        },
        {"json": {"type": "string", "maxLength": 10_000_000}},
        {"json": {"type": "array", "minItems": 10_000_000}},
        {"regex": "((a{1,100}){1,100}){1,100}"},
        {"regex": "(.*a.{500}|.*b.{500}|.*c.{300})*"},
        {"grammar": 'start: start start | "a" | "b" | start "c" start'},
    ],
    ids=["nested", "enum", "product", "string", "array", "powers", "automata", "ambiguous"],
)
def test_ambiguous_grammars_take_bounded_processor_time(compiler, scripted_engine, collect, structure):
    engine, _ = scripted_engine()
    try:
        grammar = compile(compiler, **structure)
    except InvalidValue:
        return  # the kernel has bounded the time of its compilation
    collector = collect(engine, PROMPT, grammar, temperature=1.0, seed=1, max_tokens=100).wait()
    assert collector.error is None or str(collector.error).startswith("[invalid_value:structured_outputs]")
    with suppress(psutil.NoSuchProcess):
        times = psutil.Process(grammar._process._pid).cpu_times()
        assert times.user + times.system < 10


def test_grammar_in_a_batch_changes_no_other_answer(compiler, scripted_engine, collect, tokenizer):
    engine, runner = scripted_engine(max_rows=4, seconds=0.001)
    schema = compile(compiler, json=PERSON)
    alone = collect(engine, PROMPT, schema, max_tokens=400, temperature=1.0, seed=3).wait()
    batched = [
        collect(engine, PROMPT, schema, max_tokens=400, temperature=1.0, seed=3),
        collect(engine, [9] * 20, max_tokens=60),
        collect(engine, PROMPT, max_tokens=60, logprobs=3),
        collect(engine, PROMPT, max_tokens=60, logit_bias=((70, 100.0),)),
    ]
    for collector in batched:
        collector.wait()
    assert batched[0].texts == alone.texts
    assert batched[1].texts[0] == tokenizer.decode(runner.expected_answer([9] * 20, 60))
    assert batched[2].texts[0] == tokenizer.decode(runner.expected_answer(PROMPT, 60))
    assert batched[3].texts[0] == tokenizer.decode([70] * 60)


def object_schema(num_members):
    return {"type": "object", "properties": {f"field_{i}": {"type": "string"} for i in range(num_members)}}


@pytest.mark.parametrize(
    "structure",
    [
        {"json": object_schema(200)},
        {"choice": ["\x7f", "a"]},
        {"grammar": 'start[max_tokens=5, stop="x"]: /(.|\\n)*/'},
        {"grammar": 'root ::= "a" | "b"'},
        {"json": {"type": "object", "minProperties": 1}},
    ],
    ids=["many members", "delete", "attributes", "gbnf", "least members"],
)
def test_enforceable_structures_are_accepted(compiler, structure):
    compile(compiler, **structure)


@pytest.mark.parametrize(
    ("structure", "reason"),
    [
        ({"json": {"x-guidance": {"item_separator": " "}, "type": "object"}}, "x-guidance"),
        ({"json": {"type": "object", "patternProperties": {"^a$": {}}, "minProperties": 2}}, "minProperties"),
        ({"json": {"items": {"type": "object", "minProperties": 2}}}, "minProperties"),
        ({"regex": "a" * 20_000}, "at most 16384"),
        ({"regex": ""}, "empty"),
    ],
)
def test_partly_unenforceable_structure_is_refused_with_the_reason(compiler, structure, reason):
    with pytest.raises(InvalidValue, match=reason):
        compile(compiler, **structure)
