"""The parameters of `config.pbtxt` that the LLM backend reads."""

import pytest

from backends.llm.engines import read_options
from backends.llm.ort.options import OnnxRuntimeOptions
from backends.llm.sampling_params import SamplingParams


def read(**parameters):
    return read_options({name: {"string_value": value} for name, value in parameters.items()})


def test_absent_parameters_have_defaults():
    assert read() == read(max_rows="", chat_template="{{ x }}") == OnnxRuntimeOptions()


def test_all_options_are_parsed():
    options = read(
        engine="onnxruntime",
        max_rows="4",
        max_waiting="0",
        threads="2",
        context_length="512",
        kv_memory="100",
        prefix_cache="0",
        sampling_defaults='{"temperature": 0.2, "top_p": 0.9}',
        structure_seconds="5",
        structure_memory="64",
    )
    assert options == OnnxRuntimeOptions(
        engine="onnxruntime",
        max_rows=4,
        max_waiting=0,
        threads=2,
        context_length=512,
        kv_memory=100 * 2**20,
        prefix_cache=0,
        sampling=SamplingParams(temperature=0.2, top_p=0.9),
        structure_seconds=5,
        structure_memory=64 * 2**20,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("engine", "abacus"),
        ("max_rows", "0"),
        ("max_rows", "many"),
        ("max_waiting", "-1"),
        ("context_length", "1"),
        ("kv_memory", "0"),
        ("kv_memory", "2 GB"),
        ("prefix_cache", "-1"),
        ("structure_seconds", "0"),
        ("structure_memory", "1"),
        ("sampling_defaults", "{"),
        ("sampling_defaults", "[]"),
        ("sampling_defaults", '{"temperature": -1}'),
        ("sampling_defaults", '{"heat": 1}'),
    ],
)
def test_invalid_parameter_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        read(**{name: value})
