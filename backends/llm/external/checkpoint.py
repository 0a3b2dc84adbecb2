"""The files of a model on a runtime: special tokens, engine arguments and adapters, from its version folder.

The builder copies the tokenizer and the configuration of the checkpoint there. The weights may lie elsewhere.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.llm.model_files import as_token_ids, read_json_object


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Token ids of a checkpoint. `bos` and `image` are None if it has no such token; each of `eos` ends an answer."""

    bos: int | None
    eos: frozenset[int]
    image: int | None


def read_special_tokens(folder: Path) -> SpecialTokens:
    """Read `config.json` and `generation_config.json`. Raises `FileNotFoundError` or `ValueError`, naming the file."""
    config = read_json_object(folder / "config.json")
    text = text_config(config)
    generation = folder / "generation_config.json"
    eos = as_token_ids(text.get("eos_token_id")) + (
        as_token_ids(read_json_object(generation).get("eos_token_id")) if generation.is_file() else []
    )
    if not eos:
        raise ValueError(f"{folder / 'config.json'} names no end-of-sequence token: no answer would end.")
    image = config.get("image_token_id", config.get("image_token_index"))
    return SpecialTokens(
        bos=next(iter(as_token_ids(text.get("bos_token_id"))), None),
        eos=frozenset(eos),
        image=image if isinstance(image, int) else None,
    )


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of the text model, which multimodal checkpoints nest, merged over the outer one."""
    nested = config.get("text_config")
    return config | nested if isinstance(nested, dict) else config


def read_engine_arguments(path: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an engine, whose paths are relative to the folder of their file, `path`.

    Raises `ValueError` if they name no model.
    """
    if not isinstance(arguments.get("model"), str):
        raise ValueError(f"{path} names no model: a folder, or the id of a checkpoint.")
    resolved = dict(arguments)
    for name in ("model", "tokenizer"):
        if isinstance(value := resolved.get(name), str) and (path.parent / value).is_dir():
            resolved[name] = str((path.parent / value).resolve())
    return resolved


def read_adapters(folder: Path) -> dict[str, str]:
    """Return the folders of the LoRA adapters by name, from `multi_lora.json` of Triton's vLLM backend.

    Relative paths start at `folder`. Without the file there are none. Raises `ValueError` for another form.
    """
    path = folder / "multi_lora.json"
    if not path.is_file():
        return {}
    adapters = read_json_object(path)
    if not all(isinstance(value, str) and value for value in adapters.values()):
        raise ValueError(f"{path} must hold the folder of each adapter by its name.")
    return {name: str((folder / value).resolve()) for name, value in adapters.items()}
