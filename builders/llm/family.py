"""The family `llm`: text generation, served by `backends/llm`."""

from collections.abc import Mapping
from typing import Any

from builders.family import REVISION, Builder, Family, Option
from builders.llm.recipe import LLMRecipe
from builders.recipe import DEFAULT_LLM_RECIPE, recipe_names


def _load_builder() -> Builder:
    from builders.llm.builder import LLMBuilder

    return LLMBuilder()


def _summary(figures: Mapping[str, Any]) -> str:
    if "agreement" in figures:
        where = " (on a CPU)" if figures.get("provider") == "CPUExecutionProvider" else ""
        return (
            f"Against its source{where}: same token at {figures['agreement']:.1%} of {figures['positions']} positions, "
            f"divergence {figures['divergence']:.2g} nats, perplexity times {figures['perplexity_ratio']:.4f}."
        )
    if "worst" in figures:
        return (
            f"Against its source: {figures['quantized']} matrices in {figures['quantization']}, relative error "
            f"{figures['mean']:.2g} on average and {figures['worst']:.2g} at most."
        )
    if "compiled" in figures:
        return "The engine is compiled." if figures["compiled"] else "The engine is not compiled yet: see above."
    if figures.get("weights") == "reference":
        return "Its weights stay where they are; the engine loads them from there."
    return f"Its weights are those of the source, {figures.get('bytes', 0) / 1e9:.2f} GB."


FAMILY = Family(
    name="llm",
    command="chat",
    help="Build a chat model: fetch its weights, export them, verify the engine against them, install it.",
    source_help="Hugging Face id, local folder, or packaged:NAME. Default: the packaged default model.",
    options=(
        Option("target", "What serves it: onnx (the default), vllm, llmapi, tensorrt_llm (frozen, see docs/gpu.md)."),
        Option("device", "cpu or cuda. Default: cpu for onnx, cuda for the others."),
        Option(
            "precision",
            "onnx: int8 (the default), int4 or fp32, on cuda fp16 (the default) or int4; others: checkpoint (the "
            "default) or fp16.",
        ),
        Option(
            "checkpoint_quantization",
            "Quantise with ModelOpt: fp8, nvfp4, int4_awq, w4a8_awq or int8_sq, as the target has it.",
            flag="--quantization",
        ),
        Option("gpu", "Number of the GPU that runs a model of onnx on cuda. Default: 0.", int),
        Option("layout", "tritonic, or nvidia for NVIDIA's own vLLM backend or llmapi model."),
        Option("reference", "Leave the weights where they are, in their folder or on the hub.", bool),
        Option("kv_cache_precision", "auto or fp8."),
        Option("tensor_parallel", "GPUs that share each layer.", int, "--tp"),
        Option("pipeline_parallel", "Groups of GPUs that have the layers one after the other.", int, "--pp"),
        Option("templates", "Folder of NVIDIA's container with the models that are filled in: /app/all_models/…"),
        Option("mounted_at", "The repository as Triton sees it, for NVIDIA's models. Default: /models/repository."),
        REVISION,
        Option("context_length", "Tokens of prompt and answer together.", int),
        Option("max_rows", "Sequences that run side by side.", int),
    ),
    load_builder=_load_builder,
    summary=_summary,
    default_recipe=DEFAULT_LLM_RECIPE,
    recipe_help=f"A recipe by name ({', '.join(recipe_names())}) or a .toml file; other options override it.",
    recipe=LLMRecipe,
    own_fields=frozenset({"special_tokens_in_content"}),
    format_version=1,  # 1: the input `literal_spans`
)
