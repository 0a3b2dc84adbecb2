"""Descriptions of models in the operator's models file."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.models import models_file
from gateway.models.models_file import ModelsFileError


def read(folder: Path, text: str) -> models_file.Descriptions:
    (folder / "models.toml").write_text(text, encoding="utf-8")
    return models_file.read(folder / "models.toml")


def test_all_fields_of_a_description(tmp_path: Path) -> None:
    (tmp_path / "template.jinja").write_text("{{ messages }}\n")
    description = read(
        tmp_path,
        """
        [models."ensemble"]
        served_name = "org/name"
        chat_template_file = "template.jinja"
        special_tokens = { bos_token = "<s>" }
        operations = ["chat"]
        modalities = ["text", "image"]
        context_length = 8192
        max_tokens = 512
        text = "delta"
        owned_by = "org"
        tool_call_parser = "hermes"
        reasoning_parser = "think"
        control_tokens = ["<|end|>"]
        special_tokens_in_content = "recognised"
        structured_outputs = "guided_decoding"
        add_bos_token = false
        [models."10.0.0.1:8001/ensemble"]
        hidden = true
        """,
    )
    assert description["ensemble"] == {
        "served_name": "org/name",
        "chat_template": "{{ messages }}\n",
        "special_tokens": '{"bos_token": "<s>"}',
        "operations": '["chat"]',
        "modalities": '["text", "image"]',
        "context_length": "8192",
        "max_tokens": "512",
        "text": "delta",
        "owned_by": "org",
        "tool_call_parser": "hermes",
        "reasoning_parser": "think",
        "control_tokens": '["<|end|>"]',
        "special_tokens_in_content": "recognised",
        "structured_outputs": "guided_decoding",
        "add_bos_token": "false",
    }
    assert description["10.0.0.1:8001/ensemble"] == {"hidden": "true"}


@pytest.mark.parametrize(
    ("config", "template"),
    [
        ({"chat_template": "plain"}, "plain"),
        ({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]}, "d"),
        ({}, None),
    ],
)
def test_a_tokenizer_config(tmp_path: Path, config: dict[str, Any], template: str | None) -> None:
    tokens = {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>", "pad_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, **tokens, "add_bos_token": True}))
    text = '[models.m]\ntokenizer_config = "tokenizer_config.json"\nspecial_tokens = { eos_token = "<end>" }'
    description = read(tmp_path, text)["m"]
    assert description.get("chat_template") == template
    assert json.loads(description["special_tokens"]) == {"bos_token": "<s>", "eos_token": "<end>"}


def test_special_tokens_of_a_tokenizer_config(tmp_path: Path) -> None:
    added = {"1": {"content": "<|end|>", "special": True}, "2": {"content": "<think>", "special": False}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    text = '[models.m]\ntokenizer_config = "tokenizer_config.json"'
    assert json.loads(read(tmp_path, text)["m"]["control_tokens"]) == ["<|end|>"]
    description = read(tmp_path, text + '\ncontrol_tokens = ["<|eot|>"]')["m"]
    assert json.loads(description["control_tokens"]) == ["<|eot|>"]


def test_a_template_beside_the_tokenizer_config(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text("beside")
    assert read(tmp_path, '[models.m]\ntokenizer_config = "tokenizer_config.json"')["m"]["chat_template"] == "beside"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[models", "is not TOML: "),
        ("[model.m]", "model: Extra inputs are not permitted."),
        ("[models.m]\nserved = 1", "models.m.served: Extra inputs are not permitted."),
        ('[models.m]\ncontext_length = "big"', "models.m.context_length: Input should be a valid integer."),
        ('[models.m]\noperations = ["embed"]', "models.m.operations.0: Input should be 'chat' or 'complete'."),
        ('[models.m]\nchat_template_file = "none.jinja"', "none.jinja"),
        ('[models.m]\nchat_template = "a"\ntokenizer_config = "b"', "only one of chat_template and tokenizer_config"),
        ('[models.m]\ntokenizer_config = "models.toml"', "is not JSON: "),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ModelsFileError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert sentence in message
    assert message.startswith(f"The models file {tmp_path / 'models.toml'}")
    assert message.endswith(".")
    assert "\n" not in message


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelsFileError, match="cannot be read: No such file or directory"):
        models_file.read(tmp_path / "none.toml")


@pytest.mark.parametrize(("name", "value"), [("tool_call_parser", "morse"), ("reasoning_parser", "mind")])
def test_unknown_parsers_are_refused(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ModelsFileError, match=f"models.m: {name} is '{value}'; expected one of "):
        read(tmp_path, f'[models.m]\n{name} = "{value}"\n')
