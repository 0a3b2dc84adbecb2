"""The family `embedding`: sentence-transformers models, served by `backends/embedding`."""

from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from builders.engine_targets import Device, default_device
from builders.family import REVISION, Builder, Family, Option
from builders.recipe import DEFAULT_EMBEDDING_RECIPE, EMBEDDING_QUANTIZATIONS, Precision, Recipe

GPU_ROWS = 64
"""Texts of one batch on a GPU, unless a recipe says otherwise."""


class EmbeddingRecipe(Recipe):
    """A recipe of an embedding model. These models are small, so weights are compressed only on request."""

    default_quantizations = EMBEDDING_QUANTIZATIONS

    precision: Precision = "fp32"
    device: Device = "cpu"
    """Kind of device that serves the network. Default: `cpu` for the target `onnx`, `cuda` for `tensorrt`."""

    @model_validator(mode="before")
    @classmethod
    def _set_defaults_of_device(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        device = values.get("device", default_device(values.get("target", "onnx")))
        return {"device": device} | ({"max_rows": GPU_ROWS} if device == "cuda" else {}) | values


def _load_builder() -> Builder:
    from builders.embedding.builder import EmbeddingBuilder

    return EmbeddingBuilder()


def _summary(figures: Mapping[str, Any]) -> str:
    cosine = min(figures["cosine_min"], figures.get("fp16_cosine_min", 1.0))
    return (
        f"Against its source: smallest cosine {cosine:.6f}, largest difference of a number "
        f"{figures['difference_max']:.2g}, over {figures['texts']} texts of up to {figures['longest']} tokens."
    )


FAMILY = Family(
    name="embedding",
    command="embedding",
    help="Build an embedding model from a sentence-transformers folder, and verify the engine against it.",
    source_help="Hugging Face id, local folder, or packaged:NAME. Default: the packaged default model.",
    options=(
        Option("precision", "fp32 (the default); for the CPU also int8, for CUDA fp16."),
        Option("target", "What to compile for: onnx (the default) or tensorrt."),
        Option("device", "cpu or cuda. Default: cpu for onnx, cuda for tensorrt."),
        REVISION,
        Option("context_length", "Most tokens of one text.", int),
        Option("max_rows", "Most texts of one batch, for CUDA. Default: 64.", int),
        Option("matryoshka", "The model was trained for rows that are cut.", bool),
        Option(
            "truncate_prompt_tokens",
            "Tokens that longer texts are cut to; -1: as many as the model takes. Default: refused.",
            int,
        ),
    ),
    load_builder=_load_builder,
    summary=_summary,
    default_recipe=DEFAULT_EMBEDDING_RECIPE,
    recipe=EmbeddingRecipe,
    own_fields=frozenset({"truncate_prompt_tokens"}),
    format_version=1,  # 1: `truncate_prompt_tokens`
)
