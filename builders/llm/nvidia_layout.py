"""The layout `nvidia`: the `config.pbtxt` that NVIDIA's vLLM backend and `llmapi` model expect.

These models do not describe themselves. `models.toml`, beside `config.pbtxt`, says to the gateway what their tensors do
not; it belongs into the file that `TRITONIC_MODELS_FILE` names.
"""

import json
import shutil
from pathlib import Path

from builders import config_pbtxt
from builders.checkpoint import Checkpoint, read_json
from builders.errors import SourceUnavailable
from builders.llm.recipe import LLMRecipe
from builders.llm.triton_config import owner
from builders.progress import Progress

VLLM_CONFIG = """\
name: {name}
backend: "vllm"
instance_group [
  {{
    count: 1
    kind: KIND_MODEL
  }}
]
"""
"""NVIDIA's vLLM backend declares its tensors itself, and leaves the choice of devices to vLLM."""

LLMAPI_FILES = ("config.pbtxt", "1/model.py", "1/helpers.py")
"""Files of the folder `tensorrt_llm` of the container's `llmapi`; the build writes `1/model.yaml` itself."""


def check_llmapi_templates(templates: Path) -> Path:
    """Return the folder of the `llmapi` model in the container's folder `templates`. Raises SourceUnavailable."""
    for folder in (templates / "tensorrt_llm", templates / "llmapi" / "tensorrt_llm", templates):
        if all((folder / name).is_file() for name in LLMAPI_FILES):
            return folder
    raise SourceUnavailable(
        f"{templates} is not the folder llmapi of NVIDIA's container: it has no tensorrt_llm with "
        f"{', '.join(LLMAPI_FILES)}."
    )


def write(recipe: LLMRecipe, checkpoint: Checkpoint, folder: Path, context_length: int, progress: Progress) -> None:
    """Write `config.pbtxt` and `models.toml` into `folder`, and NVIDIA's Python files into `folder/1`.

    Raises SourceUnavailable if the templates of `llmapi` cannot be used.
    """
    if recipe.target == "vllm":
        config = VLLM_CONFIG.format(name=json.dumps(recipe.name))
    else:
        assert recipe.templates is not None
        templates = check_llmapi_templates(Path(recipe.templates))
        for name in LLMAPI_FILES[1:]:
            shutil.copyfile(templates / name, folder / name)
        config = _renamed(templates / "config.pbtxt", recipe.name)
    (folder / "config.pbtxt").write_text(config, encoding="utf-8", newline="")
    write_template(checkpoint, folder / "1")
    described = models_toml(recipe, checkpoint, recipe.name, context_length, "1")
    write_models_toml(described, folder, progress)


def write_template(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the chat template into `folder`, unless `tokenizer_config.json` has it."""
    template = checkpoint.chat_template()
    if template is not None and _needs_template_file(checkpoint):
        (folder / "chat_template.jinja").write_bytes(template.encode())


def _needs_template_file(checkpoint: Checkpoint) -> bool:
    """Return whether the chat template is not the one in `tokenizer_config.json`, which the gateway reads anyway."""
    own = read_json(checkpoint.folder / "tokenizer_config.json").get("chat_template")
    return checkpoint.chat_template() is not None and checkpoint.chat_template() != own


def models_toml(
    recipe: LLMRecipe, checkpoint: Checkpoint, triton_name: str, context_length: int, tokenizer_folder: str
) -> str:
    """Return the entry of a models file for the model that Triton calls `triton_name`.

    `tokenizer_folder` is relative to the folder of the models file.
    """
    values: dict[str, object] = {
        "served_name": recipe.served_name or recipe.name,
        "owned_by": recipe.owned_by or owner(recipe.source),
        "context_length": context_length,
        "tokenizer_config": f"{tokenizer_folder}/tokenizer_config.json",
    }
    if _needs_template_file(checkpoint):
        values["chat_template_file"] = f"{tokenizer_folder}/chat_template.jinja"
    if tokens := checkpoint.control_tokens():
        values["control_tokens"] = tokens
    values["special_tokens_in_content"] = recipe.special_tokens_in_content
    for name in ("tool_call_parser", "reasoning_parser"):
        if getattr(recipe, name) is not None:
            values[name] = getattr(recipe, name)
    lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
    return "\n".join([f"[models.{_toml(triton_name)}]", *lines, ""])


def _toml(value: object) -> str:
    """Return a string, a number or a list of strings in TOML: as in JSON, but for one control character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def write_models_toml(text: str, folder: Path, progress: Progress) -> None:
    """Write `models.toml` into `folder`, and show it to the user."""
    (folder / "models.toml").write_text(text, encoding="utf-8")
    progress.note(
        "This model does not describe itself. Its models.toml, whose paths are relative to the model's folder, belongs "
        f"into the file that TRITONIC_MODELS_FILE names:\n{text}"
    )


def _renamed(template: Path, name: str) -> str:
    try:
        config = config_pbtxt.parse(template.read_text(encoding="utf-8"))
    except Exception as error:  # protobuf's ParseError, which its stubs do not name
        raise SourceUnavailable(f"{template} is not a configuration of Triton: {error}") from error
    config.name = name
    return config_pbtxt.to_text(config)
