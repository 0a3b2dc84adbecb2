"""What a sentence-transformers folder says about its model, read without torch.

The folder is a chain of modules, https://sbert.net/docs/sentence_transformer/usage/custom_models.html: a transformer, a
pooling, perhaps linear layers, perhaps a normalisation.
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
"""How a text's tokens become one row, with the flag that older folders have for each. Several are joined."""

ACTIVATIONS = {
    "Identity": "identity",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
}
"""What may follow a linear layer, by the name of torch's class."""

PADDING_OFFSET_MODEL_TYPES = (
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "mpnet",
    "roberta-prelayernorm",
    "data2vec-text",
)
"""Types of models that count positions from behind the padding token's id, so that they have fewer than they say."""


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """A linear layer after the pooling: the folder of its weights, and what follows it."""

    folder: Path
    activation: str


@dataclass(frozen=True, slots=True)
class SentenceModel:
    """A folder in the layout of sentence-transformers."""

    transformer: Checkpoint
    pooling: tuple[str, ...]
    dense_layers: tuple[DenseLayer, ...]
    normalized: bool
    max_positions: int
    """The longest text that the network can take, in tokens."""
    max_length: int
    """The longest that the folder asks for."""
    lowercase: bool
    prompts: dict[str, str]
    default_prompt: str | None


def read(checkpoint: Checkpoint) -> SentenceModel:
    """Read a folder. Raises SourceUnavailable for what is missing, UnsupportedModel for what cannot be built."""
    modules = _modules(checkpoint.folder)
    kinds = [kind for kind, _ in modules]
    linears = tuple(_linear(folder) for kind, folder in modules if kind == "Dense")
    shape = ["Transformer", "Pooling", *["Dense"] * len(linears), *["Normalize"] * kinds.count("Normalize")]
    if kinds != shape or kinds.count("Normalize") > 1:
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
        dense_layers=linears,
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
    return [(kind, place) for kind, place in found if kind != "Dropout"]  # which does nothing outside training


def _pooling(folder: Path, has_prompts: bool) -> tuple[str, ...]:
    config = read_json(folder / "config.json", needed=True)
    modes = config.get("pooling_mode") or [mode for mode, flag in POOLING_MODES.items() if config.get(flag)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if unknown := [mode for mode in modes if mode not in POOLING_MODES]:
        raise UnsupportedModel(f"The pooling {unknown[0]!r} is not known. Known: {', '.join(POOLING_MODES)}.")
    if has_prompts and config.get("include_prompt") is False:
        raise UnsupportedModel("This model leaves its prompts out of the pooling, which is not built yet.")
    return tuple(modes)


def _linear(folder: Path) -> DenseLayer:
    config = read_json(folder / "config.json", needed=True)
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
    if name not in ACTIVATIONS:
        raise UnsupportedModel(f"The activation {name!r} after a linear layer is not known: {', '.join(ACTIVATIONS)}.")
    places = [config.get(key, "sentence_embedding") for key in ("module_input_name", "module_output_name")]
    if config.get("use_residual") or any(place not in ("sentence_embedding", None) for place in places):
        raise UnsupportedModel("A linear layer beside the pooled row, or one that adds its input, is not built yet.")
    if not (folder / "model.safetensors").is_file():
        raise SourceUnavailable(f"{folder} holds no model.safetensors.")
    return DenseLayer(folder, ACTIVATIONS[name])


def _prompts(folder: Path) -> dict[str, str]:
    prompts = read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    if not isinstance(prompts, dict):
        raise SourceUnavailable(f"The prompts in {folder}/config_sentence_transformers.json are not an object.")
    return {name: prompt for name, prompt in prompts.items() if isinstance(prompt, str) and prompt}


def _own_config(folder: Path) -> dict[str, Any]:
    """The module's own file, whose name depends on the age of the folder."""
    for path in sorted(folder.glob("sentence_*_config.json")):
        return read_json(path)
    return {}


def _lengths(folder: Path, own: dict[str, Any]) -> list[int]:
    asked = [own.get("max_seq_length"), read_json(folder / "tokenizer_config.json").get("model_max_length")]
    # Tokenizers without a limit say so with a number of thirty digits.
    return [length for length in asked if isinstance(length, int) and 0 < length < 2**31]


def _positions(checkpoint: Checkpoint) -> int:
    config = checkpoint.config()
    positions = checkpoint.context_length()
    if config.get("model_type") in PADDING_OFFSET_MODEL_TYPES:
        positions -= int(config.get("pad_token_id") or 0) + 1
    return positions
