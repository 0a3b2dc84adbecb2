"""The recipe of a text-generation model."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from builders.engine_targets import Device
from builders.llm.targets import CheckpointQuantization, Layout, refusal
from builders.recipe import Recipe

GPU_ROWS = 128
"""Sequences that run side by side on a GPU, unless a recipe says otherwise."""

ONNX_GPU_ROWS = 32
"""The same of the target `onnx`: its KV cache is allocated at once, and its tokens are sampled on the CPU."""


class LLMRecipe(Recipe):
    """A recipe with the options of GPU targets. Their default is CUDA, the checkpoint's own precision, 128 rows.

    The target `onnx` defaults to the CPU; on CUDA to fp16 and 32 rows.
    """

    device: Device = "cpu"
    """Kind of device that serves the model."""
    gpu: Annotated[int, Field(ge=0)] | None = None
    """Target `onnx` on CUDA only: number of the GPU that runs the model. Default: 0."""
    layout: Layout = "tritonic"
    """`tritonic`: our backend `llm`. `nvidia`: what NVIDIA's own backend or model expects."""
    checkpoint_quantization: CheckpointQuantization | None = None
    """Quantise the checkpoint with ModelOpt. (`quantization` holds the options of int8 and int4 in ONNX.)"""
    reference: bool = False
    """Leave the weights where they are: in their folder, or on the hub, from which the engine downloads them."""
    mounted_at: Annotated[str, Field(pattern="^/")] = "/models/repository"
    """Folder of the repository as Triton sees it. NVIDIA's own models need absolute paths."""
    tensor_parallel: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs that share each layer."""
    pipeline_parallel: Annotated[int, Field(ge=1, le=64)] = 1
    """Groups of GPUs that have the layers one after the other."""
    kv_cache_precision: Literal["auto", "fp8"] = "auto"
    """Number format of the KV cache; `auto` is that of the activations."""
    templates: str | None = None
    """Folder of NVIDIA's container with the templates that its own models are made of."""

    @model_validator(mode="before")
    @classmethod
    def _set_defaults_of_target(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("target", "onnx") == "onnx":
            on_gpu = {"precision": "fp16", "max_rows": ONNX_GPU_ROWS} if values.get("device") == "cuda" else {}
            return on_gpu | values
        defaults: dict[str, Any] = {"device": "cuda", "precision": "checkpoint"}
        if values.get("target") == "tensorrt_llm":
            defaults["layout"] = "nvidia"
        if values.get("device", "cuda") == "cuda":
            defaults["max_rows"] = GPU_ROWS
        return defaults | values


def refusal_of(recipe: LLMRecipe) -> str | None:
    """Return the sentence that refuses a recipe for its combination of options; None if it can be built."""
    if "mounted_at" in recipe.model_fields_set and recipe.layout != "nvidia":
        return "--mounted-at belongs to NVIDIA's layout: add --layout nvidia, or leave it out."
    return refusal(
        recipe.target,
        recipe.device,
        layout=recipe.layout,
        precision=recipe.precision,
        quantization=recipe.checkpoint_quantization,
        reference=recipe.reference,
        num_gpus=recipe.tensor_parallel * recipe.pipeline_parallel,
        fp8_kv_cache=recipe.kv_cache_precision == "fp8",
        has_templates=recipe.templates is not None,
        gpu=recipe.gpu,
    )
