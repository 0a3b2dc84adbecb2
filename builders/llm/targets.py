"""The combinations of target, device, layout, precision and quantisation that are built, and why others are not.

`check` refuses a recipe by this table alone, before anything of its source is downloaded.
"""

from dataclasses import dataclass
from typing import Literal

from builders.engine_targets import Device
from builders.errors import UnsupportedModel
from builders.recipe import Precision, Target

Layout = Literal["tritonic", "nvidia"]
CheckpointQuantization = Literal["fp8", "nvfp4", "int4_awq", "w4a8_awq", "int8_sq"]
"""Formats of NVIDIA's ModelOpt: fp8 (E4M3), 4-bit floats in blocks of 16, 4-bit integers in groups with activations in
16 bits or in fp8, and 8-bit integers for weights and activations."""


@dataclass(frozen=True, slots=True)
class TargetSupport:
    """The choices that a target has on one device."""

    layouts: tuple[Layout, ...]
    """`tritonic`: our backend `llm`. `nvidia`: NVIDIA's own backend or model."""
    precisions: tuple[Precision, ...]
    quantizations: tuple[CheckpointQuantization, ...] = ()
    reference: bool = False
    """Weights may stay where they are."""
    parallel: bool = False
    """One model may run on several GPUs."""
    fp8_kv_cache: bool = False


SUPPORT: dict[tuple[Target, Device], TargetSupport] = {
    ("onnx", "cpu"): TargetSupport(("tritonic",), ("fp32", "int8", "int4")),
    ("onnx", "cuda"): TargetSupport(("tritonic",), ("fp16", "int4")),
    ("vllm", "cpu"): TargetSupport(
        ("tritonic", "nvidia"), ("checkpoint", "fp16", "fp32"), reference=True, parallel=True
    ),
    ("vllm", "cuda"): TargetSupport(
        ("tritonic", "nvidia"),
        ("checkpoint", "fp16", "fp32"),
        ("fp8", "nvfp4"),
        reference=True,
        parallel=True,
        fp8_kv_cache=True,
    ),
    ("llmapi", "cuda"): TargetSupport(
        ("tritonic", "nvidia"),
        ("checkpoint", "fp16"),
        ("fp8", "nvfp4", "int4_awq", "w4a8_awq"),
        reference=True,
        parallel=True,
        fp8_kv_cache=True,
    ),
    ("tensorrt_llm", "cuda"): TargetSupport(
        ("nvidia",),
        ("checkpoint", "fp16"),
        ("fp8", "nvfp4", "int4_awq", "int8_sq"),
        parallel=True,
        fp8_kv_cache=True,
    ),
}

NO_DEVICE: dict[tuple[Target, Device], str] = {
    ("llmapi", "cpu"): "TensorRT-LLM runs on NVIDIA GPUs alone. For a CPU choose onnx or vllm.",
    ("tensorrt_llm", "cpu"): "TensorRT-LLM runs on NVIDIA GPUs alone. For a CPU choose onnx or vllm.",
    ("tensorrt", "cpu"): "it is for image models. For chats choose onnx, vllm, llmapi or tensorrt_llm.",
    ("tensorrt", "cuda"): "it is for image models. For chats choose onnx, vllm, llmapi or tensorrt_llm.",
}

NO_QUANTIZATION: dict[tuple[Target, Device], str] = {
    ("onnx", "cpu"): "ModelOpt's checkpoints are for GPUs. For a CPU choose --precision int8 or int4.",
    ("onnx", "cuda"): "ModelOpt's checkpoints are for vLLM and TensorRT-LLM. For onnxruntime choose --precision int4.",
    ("vllm", "cpu"): "vLLM has no kernels for ModelOpt's formats on a CPU.",
    ("vllm", "cuda"): "vLLM loads ModelOpt's fp8 and nvfp4 alone.",
    ("llmapi", "cuda"): "TensorRT-LLM's LLM API has no kernels for int8_sq; engines of the target tensorrt_llm do.",
    ("tensorrt_llm", "cuda"): "ModelOpt writes w4a8_awq for the LLM API alone: choose the target llmapi.",
}

FROZEN = (
    "TensorRT-LLM 1.2.1 (NGC containers up to 26.07) is the last release that builds and serves engines in Triton. "
    "Prefer vllm or llmapi."
)
"""Said of every build for `tensorrt_llm`."""


def refusal(
    target: Target,
    device: Device,
    *,
    layout: Layout,
    precision: Precision,
    quantization: CheckpointQuantization | None = None,
    reference: bool = False,
    num_gpus: int = 1,
    fp8_kv_cache: bool = False,
    has_templates: bool = False,
    gpu: int | None = None,
) -> str | None:
    """Return the sentence that refuses a combination; None if it is built. `num_gpus` are those of one model, and `gpu`
    is the number of a certain one.
    """
    support = SUPPORT.get((target, device))
    if support is None:
        return f"The target {target} is not built for {device}: {NO_DEVICE[target, device]}"
    if layout not in support.layouts:
        return f"The target {target} has no layout {layout}: " + (
            "NVIDIA's own ONNX Runtime backend has no loop that generates text."
            if target == "onnx"
            else "its engines run in NVIDIA's own models alone, with --layout nvidia."
        )
    if precision not in support.precisions:
        return _no_precision(target, device, precision, support)
    if quantization is not None and quantization not in support.quantizations:
        return (
            f"The quantization {quantization} is not built for {target} on {device}: {NO_QUANTIZATION[target, device]}"
        )
    if quantization is not None and precision != "checkpoint":
        return f"The quantization {quantization} sets the number format itself: leave out --precision."
    if reference and not support.reference:
        return f"The target {target} compiles its weights, so they cannot stay where they are: leave out --reference."
    if reference and quantization is not None:
        return f"Weights in {quantization} are new files, which lie in the model's folder: leave out --reference."
    if num_gpus > 1 and not support.parallel:
        return f"The target {target} runs on one device: leave out --tp and --pp."
    if gpu is not None and (target, device) != ("onnx", "cuda"):
        return "A GPU is chosen by its number for the target onnx on cuda alone: leave out --gpu."
    if fp8_kv_cache and not support.fp8_kv_cache:
        return f"A KV cache in fp8 is not built for {target} on {device}."
    if fp8_kv_cache and target == "tensorrt_llm" and quantization is None:
        return "The scales of a KV cache in fp8 are measured while the weights are quantized: add --quantization."
    return _no_templates(target, layout, has_templates)


def _no_precision(target: Target, device: Device, precision: Precision, support: TargetSupport) -> str:
    if target == "onnx" and device == "cpu" and precision == "fp16":
        return (
            "fp16 is not built for the CPU: there the exporter has no grouped-query attention in fp16, and the graph "
            "that it writes instead fails in onnxruntime at the first step with a cache. Choose fp32, int8 or int4."
        )
    if target == "onnx" and device == "cuda" and precision == "fp32":
        return (
            "fp32 is not built for CUDA: there grouped-query attention, which keeps the KV cache in place, computes in "
            "16 bits alone. Choose fp16 or int4."
        )
    hint = ""
    if precision.startswith("int") and support.quantizations:
        hint = f" For smaller weights choose --quantization: {', '.join(support.quantizations)}."
    return f"The target {target} is built in {', '.join(support.precisions)}, not in {precision}.{hint}"


def _no_templates(target: Target, layout: Layout, has_templates: bool) -> str | None:
    wanted = {"tensorrt_llm": "inflight_batcher_llm", "llmapi": "llmapi"}.get(target) if layout == "nvidia" else None
    if wanted is not None and not has_templates:
        return (
            f"The target {target} in NVIDIA's layout needs the folder {wanted} of NVIDIA's container "
            f"(/app/all_models/{wanted}): give it with --templates."
        )
    if wanted is None and has_templates:
        return f"The target {target} in this layout has no templates: leave out --templates."
    return None


def check(message: str | None) -> None:
    """Raise UnsupportedModel with the sentence of `refusal`, if there is one."""
    if message is not None:
        raise UnsupportedModel(message)
