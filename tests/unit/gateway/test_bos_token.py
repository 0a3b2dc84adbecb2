"""The beginning-of-sequence token: the template, the gateway or the model adds it, and only one of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.model_card.card import parse_text
from gateway.operations.complete import Complete
from gateway.prompting import tokenizer_files
from gateway.prompting.bos_token import strip_bos
from gateway.signatures import embedding, llmapi, registry, tensorrt_llm, vllm
from gateway.triton.model_config import ModelConfig

LLAMA = {"chat_template": "{{ bos_token }}{{ messages }}", "special_tokens": '{"bos_token": "<s>"}'}


def config(name: str = "m", layout: Any = vllm, steps: tuple[str, ...] = (), **inputs: str) -> ModelConfig:
    marks = getattr(layout, "DISTINCTIVE_INPUTS", {})
    return ModelConfig(name, {}, {**layout.INPUTS, **marks, **inputs}, layout.OUTPUTS, b"", steps=steps)


def adds(model: ModelConfig, parameters: dict[str, str] = LLAMA, *others: ModelConfig) -> str | None:
    known = {one.name: one for one in (model, *others)}
    return registry.complete_config(model, parameters, known)[0].parameters.get("add_bos_token")


@pytest.mark.parametrize("layout", [vllm, llmapi, tensorrt_llm])
def test_bos_is_added_where_the_checkpoint_begins_with_it(layout: Any) -> None:
    model = config(layout=layout)
    assert adds(model) == "true"
    # Some checkpoints call the mark of a turn so, and their templates write it out.
    assert adds(model, {**LLAMA, "chat_template": "<s>{{ messages }}"}) is None
    assert adds(model, {**LLAMA, "chat_template": "<s>{{ messages }}", "tokenizer_adds_bos": "true"}) == "true"
    assert adds(model, {**LLAMA, "tokenizer_adds_bos": "false"}) is None
    assert adds(model, {**LLAMA, "add_bos_token": "false"}) == "false"
    assert adds(model, {}) is None


def test_our_backend_gets_the_prompt_of_the_template() -> None:
    assert adds(config(token_ids="INT32")) is None
    assert adds(config(token_ids="INT32"), {**LLAMA, "add_bos_token": "true"}) == "true"
    assert adds(config(layout=embedding), {**LLAMA, "signature": "embedding"}) is None


@pytest.mark.parametrize(("setting", "expected"), [("False", None), ("n", None), ("True", "true"), ("${add}", "true")])
def test_the_tokenizing_step_may_be_configured_not_to_add_bos(setting: str, expected: str | None) -> None:
    step = ModelConfig("preprocessing", {"add_special_tokens": setting}, {}, {}, b"")
    assert adds(config("tensorrt_llm_bls", tensorrt_llm), LLAMA, step) == expected
    assert adds(config("ensemble", tensorrt_llm, steps=("preprocessing", "core")), LLAMA, step) == expected
    assert adds(config("other", tensorrt_llm, steps=("core",)), LLAMA, step) == "true"
    assert adds(config("ensemble", tensorrt_llm, steps=("preprocessing",)), {**LLAMA, "add_bos_token": "true"}, step)


def test_a_leading_bos_is_stripped() -> None:
    parameters = {**LLAMA, "add_bos_token": "true"}

    def sent(prompt: str | tuple[int, ...], *spans: tuple[int, int]) -> tuple[Any, tuple[tuple[int, int], ...]]:
        stripped = strip_bos(Complete(model="m", prompt=prompt, literal_spans=spans), parse_text(parameters))
        return stripped.prompt, stripped.literal_spans

    assert sent("<s>é[x]", (5, 6), (7, 8)) == ("é[x]", ((2, 3), (4, 5)))
    assert sent("<s>[x]", (3, 6)) == ("[x]", ((0, 3),))
    assert sent("<s>[x]", (0, 3)) == ("<s>[x]", ((0, 3),))  # a caller's
    assert sent("<s><s>") == ("<s>", ())
    assert sent("<s>") == ("<s>", ())  # nothing would be left
    assert sent((1, 2)) == ((1, 2), ())
    request = Complete(model="m", prompt="<s>x")
    assert strip_bos(request, parse_text(LLAMA)) is request
    assert strip_bos(request, parse_text({"add_bos_token": "true"})) is request


PUT = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A"}}],
}
LATER = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<s>"}}]}


@pytest.mark.parametrize(
    ("tokenizer_config", "processor", "adds"),
    [
        ({}, ..., None),
        ({"add_bos_token": False}, PUT, False),
        ({"add_bos_token": True}, None, True),
        ({"bos_token": None}, PUT, False),
        ({}, PUT, True),
        ({}, {"type": "Sequence", "processors": [{"type": "ByteLevel"}, PUT]}, True),
        ({}, {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0]}, True),
        ({}, {"type": "ByteLevel"}, False),
        ({}, LATER, False),
        ({}, None, False),
        ({"tokenizer_class": "GPT2Tokenizer"}, ..., False),
        ({"tokenizer_class": "Qwen2TokenizerFast"}, ..., False),
        ({"tokenizer_class": "LlamaTokenizer"}, ..., None),
    ],
)
def test_tokenizer_files_decide_about_bos(
    tmp_path: Path, tokenizer_config: Any, processor: Any, adds: bool | None
) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", **tokenizer_config}))
    if processor is not ...:
        (tmp_path / "tokenizer.json").write_text(json.dumps({"post_processor": processor}))
    assert tokenizer_files.read(tmp_path / "tokenizer_config.json").adds_bos_token is adds


@pytest.mark.parametrize(
    "processor",
    [
        {"type": "TemplateProcessing", "single": [1]},
        {"type": "TemplateProcessing", "single": 1},
        {"type": "TemplateProcessing", "single": [{"SpecialToken": "<s>"}]},
        {"type": "BertProcessing"},
        {"type": "RobertaProcessing", "cls": []},
    ],
)
def test_a_broken_post_processor_is_reported(tmp_path: Path, processor: dict[str, Any]) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    (tmp_path / "tokenizer.json").write_text(json.dumps({"post_processor": processor}))
    with pytest.raises(ValueError, match=r"tokenizer\.json has a post_processor"):
        tokenizer_files.read(tmp_path / "tokenizer_config.json")


@pytest.mark.parametrize("template", [[1], [{"name": "default"}]])
def test_broken_named_templates_are_reported(tmp_path: Path, template: list[Any]) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    with pytest.raises(ValueError, match="chat_template"):
        tokenizer_files.read(tmp_path / "tokenizer_config.json")
