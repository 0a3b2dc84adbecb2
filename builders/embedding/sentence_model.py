"""Read a sentence-transformers folder, without torch.

The folder is a chain of modules: a transformer, a pooling, optional dense layers, an optional normalisation.
Format: https://sbert.net/docs/sentence_transformer/usage/custom_models.html.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.checkpoint import Checkpoint, read_json
from builders.errors import SourceUnavailable, UnsupportedModel

POOLING_MODES = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
"""Supported pooling modes, with the flag of each in older folders. The results of several are concatenated."""

ACTIVATIONS = {
    "Identity": "identity",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
}
"""Supported activations after a dense layer, by the name of torch's class."""

PADDING_OFFSET_MODEL_TYPES = (
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "mpnet",
    "roberta-prelayernorm",
    "data2vec-text",
)
"""Model types whose positions start after the padding token's id, so that fewer are usable than the config says."""


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """A dense layer after the pooling: the folder of its weights, and its activation."""

    folder: Path
    activation: str


@dataclass(frozen=True, slots=True)
class SentenceModel:
    """The contents of a sentence-transformers folder."""

    transformer: Checkpoint
    pooling: tuple[str, ...]
    dense_layers: tuple[DenseLayer, ...]
    normalized: bool
    max_positions: int
    """Tokens of the longest text that the network accepts."""
    max_length: int
    """The most tokens of a text by the checkpoint's own files (`max_positions` is what the network accepts)."""
    lowercase: bool
    prompts: dict[str, str]
    default_prompt: str | None


def read(checkpoint: Checkpoint) -> SentenceModel:
    """Read a folder. Raises SourceUnavailable if files are missing, UnsupportedModel if it cannot be built."""
    modules = _modules(checkpoint.folder)
    kinds = [kind for kind, _ in modules]
    dense_layers = tuple(_dense_layer(folder) for kind, folder in modules if kind == "Dense")
    expected = ["Transformer", "Pooling", *["Dense"] * len(dense_layers), *["Normalize"] * kinds.count("Normalize")]
    if kinds != expected or kinds.count("Normalize") > 1:
        raise UnsupportedModel(
            f"The modules of this model are {', '.join(kinds)}. What can be built is a Transformer, a Pooling, any "
            "number of Dense and at most one Normalize, in this order."
        )
    transformer = Checkpoint(modules[0][1])
    prompts = _prompts(checkpoint.folder)
    default = read_json(checkpoint.folder / "config_sentence_transformers.json").get("default_prompt_name")
    if default is not None and default not in prompts:
        raise SourceUnavailable(f"{checkpoint.folder} names {default!r} as its default prompt, and has no such prompt.")
    positions = _positions(transformer)
    own = _own_config(transformer.folder)
    return SentenceModel(
        transformer=transformer,
        pooling=_pooling(modules[1][1], bool(prompts)),
        dense_layers=dense_layers,
        normalized="Normalize" in kinds,
        max_positions=positions,
        max_length=min([positions, *_lengths(transformer.folder, own)]),
        lowercase=bool(own.get("do_lower_case")),
        prompts=prompts,
        default_prompt=default,
    )


def _modules(folder: Path) -> list[tuple[str, Path]]:
    path = folder / "modules.json"
    try:
        entries = json.loads(path.read_bytes())
        found = [(str(entry["type"]).rsplit(".", 1)[-1], folder / entry["path"]) for entry in entries]
    except FileNotFoundError:
        raise SourceUnavailable(
            f"{folder} has no modules.json, which says how the rows of a text's tokens become one: it is not in the "
            "layout of sentence-transformers."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceUnavailable(f"{path} cannot be read: {error}") from error
    for kind, place in found:
        if not place.resolve().is_relative_to(folder.resolve()):
            raise SourceUnavailable(f"{path} names a folder outside the model: {place}.")
        if kind not in ("Normalize", "Dropout") and not place.is_dir():
            raise SourceUnavailable(f"{path} names the folder {place}, which is missing.")
    return [(kind, place) for kind, place in found if kind != "Dropout"]  # Dropout does nothing outside training


def _pooling(folder: Path, has_prompts: bool) -> tuple[str, ...]:
    config = read_json(folder / "config.json", needed=True)
    modes = config.get("pooling_mode") or [mode for mode, flag in POOLING_MODES.items() if config.get(flag)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if unknown := [mode for mode in modes if mode not in POOLING_MODES]:
        raise UnsupportedModel(f"The pooling {unknown[0]!r} is not known. Known: {', '.join(POOLING_MODES)}.")
    if has_prompts and config.get("include_prompt") is False:
        raise UnsupportedModel("This model leaves its prompts out of the pooling, which is not built yet.")
    return tuple(modes)


def _dense_layer(folder: Path) -> DenseLayer:
    config = read_json(folder / "config.json", needed=True)
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
    if name not in ACTIVATIONS:
        raise UnsupportedModel(f"The activation {name!r} after a linear layer is not known: {', '.join(ACTIVATIONS)}.")
    places = [config.get(key, "sentence_embedding") for key in ("module_input_name", "module_output_name")]
    if config.get("use_residual") or any(place not in ("sentence_embedding", None) for place in places):
        raise UnsupportedModel("A dense layer that adds its input, or uses another tensor, is not built yet.")
    if not (folder / "model.safetensors").is_file():
        raise SourceUnavailable(f"{folder} holds no model.safetensors.")
    return DenseLayer(folder, ACTIVATIONS[name])


def _prompts(folder: Path) -> dict[str, str]:
    prompts = read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    if not isinstance(prompts, dict):
        raise SourceUnavailable(f"The prompts in {folder}/config_sentence_transformers.json are not an object.")
    return {name: prompt for name, prompt in prompts.items() if isinstance(prompt, str) and prompt}


def _own_config(folder: Path) -> dict[str, Any]:
    """Read the module's own configuration file, whose name depends on the version that wrote the folder."""
    for path in sorted(folder.glob("sentence_*_config.json")):
        return read_json(path)
    return {}


def _lengths(folder: Path, own: dict[str, Any]) -> list[int]:
    limits = [own.get("max_seq_length"), read_json(folder / "tokenizer_config.json").get("model_max_length")]
    # Tokenizers without a limit have a model_max_length of thirty digits.
    return [length for length in limits if isinstance(length, int) and 0 < length < 2**31]


def _positions(checkpoint: Checkpoint) -> int:
    config = checkpoint.config()
    positions = checkpoint.context_length()
    if config.get("model_type") in PADDING_OFFSET_MODEL_TYPES:
        positions -= int(config.get("pad_token_id") or 0) + 1
    return positions
