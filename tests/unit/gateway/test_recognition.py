"""Models that do not describe themselves."""

import json
from dataclasses import replace
from typing import Any

import pytest

from gateway.signatures import llmapi, registry, tensorrt_llm, vllm
from gateway.triton.model_config import ModelConfig


def config(layout: Any, *, batch: int = 0, **parameters: str) -> ModelConfig:
    inputs = {**layout.INPUTS, **getattr(layout, "OPTIONAL_INPUTS", {}), "more": "FP16"}
    outputs = {**layout.OUTPUTS, "more": "FP32"}
    return ModelConfig("m", parameters, inputs, outputs, b"", max_batch_size=batch)


@pytest.mark.parametrize(
    ("layout", "batch", "name"),
    [
        (vllm, 0, "vllm"),
        (llmapi, 0, "llmapi"),
        (tensorrt_llm, 0, "tensorrt_llm"),
        (tensorrt_llm, 64, "tensorrt_llm"),
        # They read prompts of one dimension only.
        (vllm, 8, None),
        (llmapi, 8, None),
    ],
)
def test_tensors_show_the_layout(layout: Any, batch: int, name: str | None) -> None:
    assert registry.recognize(config(layout, batch=batch)) == name


@pytest.mark.parametrize(("layout", "name"), [(vllm, "vllm"), (llmapi, "llmapi"), (tensorrt_llm, "tensorrt_llm")])
def test_another_datatype_or_a_missing_tensor_is_another_layout(layout: Any, name: str) -> None:
    whole = config(layout)
    for tensor in layout.INPUTS:
        assert registry.recognize(replace(whole, inputs={**whole.inputs, tensor: "FP64"})) != name
        remaining = {name: kind for name, kind in whole.inputs.items() if name != tensor}
        assert registry.recognize(replace(whole, inputs=remaining)) != name
    assert registry.recognize(replace(whole, outputs={})) is None


@pytest.mark.parametrize(
    ("inputs", "name"),
    [
        ({"text_input": "BYTES", "stream": "BOOL", "return_logprobs": "BOOL"}, "tensorrt_llm"),
        ({"text_input": "BYTES", "max_tokens": "INT32"}, "tensorrt_llm"),
        ({"text_input": "BYTES", "streaming": "BOOL"}, "llmapi"),
        ({"text_input": "BYTES", "streaming": "BOOL", "max_tokens": "INT32"}, "llmapi"),
        # Nothing tells of which layout they are: the models file may.
        ({"text_input": "BYTES"}, None),
        ({"text_input": "BYTES", "stream": "FP32"}, None),
        ({"prompt": "BYTES", "stream": "BOOL"}, None),
    ],
)
def test_unused_tensors_are_optional(inputs: dict[str, str], name: str | None) -> None:
    minimal = ModelConfig("m", {}, inputs, {"text_output": "BYTES"}, b"")
    assert registry.recognize(minimal) == name


def test_a_model_without_a_template_completes_only_and_says_how_it_could_chat() -> None:
    completed, remark = registry.complete_config(config(llmapi), {})
    assert json.loads(completed.parameters["operations"]) == ["complete"]
    assert 'TRITONIC_MODELS_FILE: [models."m"] with tokenizer_config' in (remark or "")
    completed, remark = registry.complete_config(config(llmapi), {"chat_template": "x"})
    assert json.loads(completed.parameters["operations"]) == ["chat", "complete"]
    assert remark is None


def test_the_model_wins_over_the_file_and_the_file_over_the_tensors() -> None:
    described = {"served_name": "file", "signature": "tensorrt_llm", "owned_by": "file"}
    completed, _ = registry.complete_config(config(llmapi, served_name="own"), described)
    assert completed.parameters["served_name"] == "own"
    assert completed.parameters["signature"] == "tensorrt_llm"
    assert completed.parameters["owned_by"] == "file"


def test_unknown_tensors_give_no_signature() -> None:
    unknown = ModelConfig("m", {}, {"x": "FP32"}, {"y": "FP32"}, b"")
    completed, remark = registry.complete_config(unknown, {"served_name": "n"})
    assert ("signature" in completed.parameters, remark) == (False, None)


def test_the_steps_of_an_ensemble() -> None:
    ensemble = replace(config(tensorrt_llm, batch=8), name="ensemble", steps=("before", "core", "after"))
    inputs = {"input_ids": "INT32", "input_lengths": "INT32", "request_output_len": "INT32", "stop": "BOOL"}
    core = ModelConfig("core", {}, inputs, {}, b"", max_batch_size=8)
    known = {"ensemble": ensemble, "core": core}
    assert registry.is_ensemble_step("core", known)
    assert not registry.is_ensemble_step("ensemble", known)
    stop = registry.find_stop_request(ensemble, known)
    assert stop is not None
    assert stop.model == "core"
    assert registry.find_stop_request(ensemble, {"ensemble": ensemble}) is None
