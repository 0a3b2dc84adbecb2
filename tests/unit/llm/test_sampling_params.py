"""Sampling parameters: the options that are parsed, their defaults, and refusals by name."""

import json
from dataclasses import replace
from typing import Any

import pytest

from backends.llm.sampling_params import (
    SamplingParams,
    StructuredOutputsParams,
    parse_sampling_params,
    sampling_params_from_request,
)
from backends.serving.errors import GenerationError, InvalidValue, UnsupportedOption


def parse(**options):
    return parse_sampling_params(json.dumps(options), 1000)


def test_all_options_are_parsed():
    options: dict[str, Any] = {
        "max_tokens": 5,
        "temperature": 0,
        "top_p": 1,
        "top_k": -1,
        "min_p": 0.5,
        "stop": ["a", "\n"],
        "stop_token_ids": [1, 999],
        "seed": -(2**63),
        "n": 3,
        "presence_penalty": -2,
        "frequency_penalty": 2.0,
        "repetition_penalty": 1.1,
        "ignore_eos": True,
    }
    expected = options | {"top_k": 0, "stop": ("a", "\n"), "stop_token_ids": (1, 999)}
    assert parse(**options) == SamplingParams(**expected)
    assert parse() == parse(**dict.fromkeys(options)) == SamplingParams()
    assert parse(stop="END").stop == ("END",) and parse(stop=[]).stop == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", -1),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("max_tokens", "5.0"),
        ("max_tokens", "0x10"),
        ("max_tokens", "1_000"),
        ("max_tokens", " 5"),
        ("max_tokens", "\u0665"),
        ("max_tokens", ""),
        ("max_tokens", "-1"),
        ("max_tokens", "9" * 5000),
        ("temperature", -1),
        ("temperature", "-1"),
        ("temperature", "nan"),
        ("temperature", "inf"),
        ("temperature", "-Infinity"),
        ("temperature", "1e999"),
        ("temperature", "0x1p3"),
        ("temperature", "0." + "1" * 5000),
        ("temperature", "."),
        ("temperature", "1e"),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", "hot"),
        ("temperature", 10**400),
        ("top_p", -0.01),
        ("top_p", 1.01),
        ("top_k", -2),
        ("top_k", 1.0),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("stop", 5),
        ("stop", ["a"] * 5),
        ("stop", [""]),
        ("stop", "x" * 1025),
        ("stop", ["a", 1]),
        ("stop_token_ids", [1000]),
        ("stop_token_ids", [-1]),
        ("stop_token_ids", 5),
        ("stop_token_ids", [True]),
        ("stop_token_ids", "5"),
        ("stop_token_ids", "[5"),
        ("seed", 2**70),
        ("seed", 2**63),
        ("seed", 1.0),
        ("n", 0),
        ("n", 1000),
        ("n", "two"),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("frequency_penalty", None.__class__.__name__),
        ("repetition_penalty", 0),
        ("repetition_penalty", -1),
        ("repetition_penalty", 0.009),
        ("ignore_eos", 1),
        ("ignore_eos", "1"),
        ("ignore_eos", ""),
        ("min_tokens", -1),
        ("min_tokens", 1.5),
        ("logprobs", 21),
        ("logprobs", True),
        ("prompt_logprobs", -1),
        ("logit_bias", [5, 1.0]),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {"-1": 1}),
        ("logit_bias", {"1000": 1}),
        ("logit_bias", {"9" * 5000: 1}),
        ("logit_bias", {"²": 1}),
        ("logit_bias", {"5": 100.5}),
        ("logit_bias", {"5": "one"}),
        ("logit_bias", "5"),
        ("logit_bias", "{"),
        ("logit_bias", {"5": None}),
        ("logit_bias", {str(number): 1 for number in range(1025)}),
        ("structured_outputs", 1),
        ("structured_outputs", "{"),
        ("structured_outputs", {}),
        ("structured_outputs", {"regex": "a", "choice": ["a"]}),
        ("structured_outputs", {"json_object": True}),
        ("structured_outputs", {"json": 5}),
        ("structured_outputs", {"json": "[]"}),
        ("structured_outputs", {"json": "["}),
        ("structured_outputs", {"regex": ["a"]}),
        ("structured_outputs", {"regex": "x" * 262_145}),
        ("structured_outputs", {"regex": "\ud800"}),
        ("structured_outputs", {"choice": []}),
        ("structured_outputs", {"choice": ["a", ""]}),
        ("structured_outputs", {"choice": "a"}),
        ("structured_outputs", {"grammar": "x" * 65_537}),
    ],
)
def test_invalid_value_is_refused_by_name(name, value):
    with pytest.raises(InvalidValue) as raised:
        parse(**{name: value})
    assert str(raised.value).startswith(f"[invalid_value:{name}] ")


@pytest.mark.parametrize(
    ("strings", "values"),
    [
        (
            {"temperature": "0.1", "top_p": "0.95", "max_tokens": "16"},
            {"temperature": 0.1, "top_p": 0.95, "max_tokens": 16},
        ),
        ({"temperature": "1", "top_p": ".5", "min_p": "1.e-1"}, {"temperature": 1.0, "top_p": 0.5, "min_p": 0.1}),
        ({"top_k": "-1", "seed": "-7", "n": "+2"}, {"top_k": -1, "seed": -7, "n": 2}),
        ({"logprobs": "3", "min_tokens": "0"}, {"logprobs": 3, "min_tokens": 0}),
        ({"ignore_eos": "true", "skip_special_tokens": "False"}, {"ignore_eos": True, "skip_special_tokens": False}),
        ({"stop_token_ids": "[1, 2]"}, {"stop_token_ids": [1, 2]}),
        ({"logit_bias": '{"7": "-1.5"}'}, {"logit_bias": {"7": -1.5}}),
    ],
    ids=str,
)
def test_values_may_come_as_strings(strings, values):
    """NVIDIA's own sample client sends numbers as strings."""
    assert parse(**strings) == parse(**values) != parse()


def test_string_that_is_not_a_number_is_refused():
    with pytest.raises(InvalidValue, match="must be a number in decimal digits, not 'nan'"):
        parse(temperature="nan")


def test_request_parameters_are_parsed_like_the_tensor_but_limit_max_tokens():
    defaults = SamplingParams(temperature=0.2)
    assert sampling_params_from_request({"top_p": "0.5"}, 1000, defaults) == SamplingParams(
        temperature=0.2, top_p=0.5, max_tokens=16
    )
    assert sampling_params_from_request({"max_tokens": 6}, 1000, defaults).max_tokens == 6
    assert sampling_params_from_request({}, 1000, replace(defaults, max_tokens=40)).max_tokens == 40
    assert sampling_params_from_request({}, 1000, replace(defaults, min_tokens=20)).max_tokens == 20
    with pytest.raises(InvalidValue, match=r"\[invalid_value:min_tokens\] .* 16"):
        sampling_params_from_request({"min_tokens": 17}, 1000, defaults)
    with pytest.raises(UnsupportedOption, match=r"^\[unsupported_option:beams\]"):
        sampling_params_from_request({"beams": 4}, 1000, defaults)


@pytest.mark.parametrize("name", ["lora_name", "guided_json", "Stop"])
def test_unknown_option_is_refused_by_name(name):
    with pytest.raises(UnsupportedOption) as raised:
        parse(**{name: 1})
    assert str(raised.value).startswith(f"[unsupported_option:{name}] ")


@pytest.mark.parametrize(
    "document", [b"", b"{", b"[]", b"null", b"\xff", b'"x"', b"[" * 100_000, b'{"seed": ' + b"9" * 5000 + b"}"]
)
def test_document_that_is_not_an_object_is_refused(document):
    with pytest.raises(GenerationError) as raised:
        parse_sampling_params(document, 1000)
    assert str(raised.value).startswith("[invalid_value:")


def test_model_defaults_replace_absent_options():
    defaults = SamplingParams(temperature=0.2, top_p=0.9, repetition_penalty=1.1)
    document = json.dumps({"temperature": 0, "top_p": None, "seed": 7})
    assert parse_sampling_params(document, 1000, defaults) == SamplingParams(
        temperature=0, top_p=0.9, repetition_penalty=1.1, seed=7
    )


def test_extreme_bounds_are_accepted():
    assert parse(max_tokens=0).max_tokens == 0
    assert parse(top_p=0).top_p == 0


def test_min_tokens_beyond_max_tokens_is_refused():
    with pytest.raises(InvalidValue, match=r"\[invalid_value:min_tokens\] .* 5"):
        parse(max_tokens=5, min_tokens=6)
    assert parse(max_tokens=5, min_tokens=5).min_tokens == 5


def test_logit_bias_becomes_pairs():
    assert parse(logit_bias={"7": 100, "0": -2.5}).logit_bias == ((7, 100.0), (0, -2.5))


@pytest.mark.parametrize(
    ("structure", "kind", "text"),
    [
        ({"json": {"type": "object"}}, "json", '{"type": "object"}'),
        ({"json": '{"type":  "object"}'}, "json", '{"type": "object"}'),
        ({"json": True, "regex": None}, "json", "true"),
        ('{"regex": "a|b"}', "regex", "a|b"),
        ({"choice": ["é", '"']}, "choice", '["é", "\\""]'),
        ({"grammar": 'root ::= "a"'}, "grammar", 'root ::= "a"'),
    ],
)
def test_structure_is_an_object_or_json_in_a_string(structure, kind, text):
    assert parse(structured_outputs=structure).structured_outputs == StructuredOutputsParams(kind, text)
