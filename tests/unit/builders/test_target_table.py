"""Every combination of target, device, layout, precision and quantisation is built, or refused with its reason."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from builders import recipe as recipes
from builders.build import build
from builders.engine_targets import Device
from builders.errors import UnsupportedModel
from builders.llm.recipe import GPU_ROWS, ONNX_GPU_ROWS, LLMRecipe, refusal_of
from builders.llm.targets import SUPPORT, CheckpointQuantization, Layout, refusal
from builders.recipe import Precision, Recipe, Target
from builders.sources import HubSource

Recipes = Callable[..., Recipe]

BUILT = {
    "onnx cpu tritonic": {"fp32", "int8", "int4"},
    "onnx cuda tritonic": {"fp16", "int4"},
    "vllm cpu tritonic": {"checkpoint", "fp16", "fp32"},
    "vllm cpu nvidia": {"checkpoint", "fp16", "fp32"},
    "vllm cuda tritonic": {"checkpoint", "fp16", "fp32", "fp8", "nvfp4"},
    "vllm cuda nvidia": {"checkpoint", "fp16", "fp32", "fp8", "nvfp4"},
    "llmapi cuda tritonic": {"checkpoint", "fp16", "fp8", "nvfp4", "int4_awq", "w4a8_awq"},
    "llmapi cuda nvidia": {"checkpoint", "fp16", "fp8", "nvfp4", "int4_awq", "w4a8_awq"},
    "tensorrt_llm cuda nvidia": {"checkpoint", "fp16", "fp8", "nvfp4", "int4_awq", "int8_sq"},
}
"""The number formats that each target is built in; a quantisation goes with the precision `checkpoint` alone."""

PLACES = list(itertools.product(get_args(Target), get_args(Device), get_args(Layout)))


def needs_templates(target: Target, layout: Layout) -> bool:
    return layout == "nvidia" and target in ("llmapi", "tensorrt_llm")


@pytest.mark.parametrize(("target", "device", "layout"), PLACES)
def test_all_number_formats_are_built_or_refused(target: Target, device: Device, layout: Layout) -> None:
    found = set()
    for precision, quantization in itertools.product(get_args(Precision), (None, *get_args(CheckpointQuantization))):
        reason = refusal(
            target,
            device,
            layout=layout,
            precision=precision,
            quantization=quantization,
            has_templates=needs_templates(target, layout),
        )
        if reason is None:
            assert quantization is None or precision == "checkpoint"
            found.add(quantization or precision)
        else:
            assert reason.endswith(".") and len(reason) > 40
    assert found == BUILT.get(f"{target} {device} {layout}", set())


@pytest.mark.parametrize(("target", "device", "layout"), PLACES)
@pytest.mark.parametrize(
    ("option", "supported"),
    [
        ({"reference": True}, lambda support: support.reference),
        ({"num_gpus": 2}, lambda support: support.parallel),
        ({"fp8_kv_cache": True}, lambda support: support.fp8_kv_cache),
    ],
)
def test_options_are_refused_where_a_target_has_none(
    target: Target, device: Device, layout: Layout, option: dict[str, Any], supported: Callable[[Any], bool]
) -> None:
    if f"{target} {device} {layout}" not in BUILT:
        return
    support = SUPPORT[target, device]
    # Scales of an engine's KV cache are measured with those of its weights.
    quantization: CheckpointQuantization | None = (
        "fp8" if "fp8_kv_cache" in option and target == "tensorrt_llm" else None
    )
    reason = refusal(
        target,
        device,
        layout=layout,
        precision=support.precisions[0],
        quantization=quantization,
        has_templates=needs_templates(target, layout),
        **option,
    )
    assert (reason is None) == supported(support)


def test_templates_are_demanded_where_they_are_needed_and_refused_elsewhere() -> None:
    for target, device, layout in PLACES:
        if f"{target} {device} {layout}" in BUILT:
            precision = SUPPORT[target, device].precisions[0]
            for given in (True, False):
                reason = refusal(target, device, layout=layout, precision=precision, has_templates=given)
                assert (reason is None) == (given == needs_templates(target, layout))
                assert reason is None or "--templates" in reason


def test_quantized_weights_cannot_be_a_reference() -> None:
    reason = refusal("vllm", "cuda", layout="tritonic", precision="checkpoint", quantization="fp8", reference=True)
    assert reason is not None and "leave out --reference" in reason


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"target": "tensorrt_llm", "device": "cpu"}, "NVIDIA GPUs alone"),
        ({"target": "onnx", "device": "cuda", "precision": "fp32"}, "16 bits alone"),
        ({"target": "onnx", "device": "cuda", "precision": "int8"}, "built in fp16, int4, not in int8"),
        ({"target": "onnx", "device": "cuda", "checkpoint_quantization": "fp8"}, "--precision int4"),
        ({"target": "onnx", "device": "cuda", "layout": "nvidia"}, "no loop that generates text"),
        ({"target": "vllm", "gpu": 1}, "leave out --gpu"),
        ({"target": "onnx", "checkpoint_quantization": "fp8"}, "--precision int8 or int4"),
        ({"target": "onnx", "layout": "nvidia"}, "no loop that generates text"),
        ({"target": "vllm", "precision": "int8"}, "choose --quantization: fp8, nvfp4"),
        ({"target": "vllm", "checkpoint_quantization": "int4_awq"}, "fp8 and nvfp4 alone"),
        ({"target": "tensorrt_llm", "layout": "tritonic"}, "--layout nvidia"),
        ({"target": "tensorrt_llm"}, "inflight_batcher_llm"),
    ],
)
def test_a_refusal_comes_before_anything_is_downloaded(
    options: dict[str, Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the hub was called")

    for name in ("config", "num_parameters", "fetch", "digest"):
        monkeypatch.setattr(HubSource, name, fail)
    with pytest.raises(UnsupportedModel, match=reason):
        build(recipes.make(name="m", source="some/model", **options), tmp_path / "repository")
    assert list(tmp_path.iterdir()) == []


def test_a_target_decides_the_defaults() -> None:
    plain = recipes.make(name="m", source="/m")
    assert isinstance(plain, LLMRecipe)
    assert (plain.device, plain.precision, plain.max_rows, plain.layout) == ("cpu", "int8", 16, "tritonic")
    vllm = recipes.make(name="m", source="/m", target="vllm")
    assert isinstance(vllm, LLMRecipe)
    assert (vllm.device, vllm.precision, vllm.max_rows) == ("cuda", "checkpoint", GPU_ROWS)
    assert refusal_of(vllm) is None
    on_cpu = recipes.make(name="m", source="/m", target="vllm", device="cpu", max_rows=4)
    assert (on_cpu.precision, on_cpu.max_rows) == ("checkpoint", 4)
    onnx = recipes.make(name="m", source="/m", device="cuda", gpu=1)
    assert isinstance(onnx, LLMRecipe)
    assert (onnx.target, onnx.precision, onnx.max_rows) == ("onnx", "fp16", ONNX_GPU_ROWS)
    assert refusal_of(onnx) is None
    frozen = recipes.make(name="m", source="/m", target="tensorrt_llm", templates="/t")
    assert isinstance(frozen, LLMRecipe)
    assert frozen.layout == "nvidia" and refusal_of(frozen) is None


def test_another_target_does_not_inherit_what_a_recipe_chose_for_its_own() -> None:
    own = recipes.load("llama-3.2-1b-instruct")
    assert (own.precision, own.max_rows, own.context_length) == ("int8", 8, 8192)
    other = recipes.load("llama-3.2-1b-instruct", target="vllm")
    assert (other.precision, other.max_rows, other.context_length) == ("checkpoint", GPU_ROWS, 8192)
    chosen = recipes.load("llama-3.2-1b-instruct", target="vllm", precision="fp16")
    assert chosen.precision == "fp16"
    assert recipes.load("llama-3.2-1b-instruct", target="onnx") == own
    on_gpu = recipes.load("llama-3.2-1b-instruct", device="cuda")
    assert (on_gpu.precision, on_gpu.max_rows, on_gpu.context_length) == ("fp16", ONNX_GPU_ROWS, 8192)
    assert recipes.load("llama-3.2-1b-instruct", device="cpu") == own


def test_a_mount_point_belongs_to_the_layout_of_nvidia() -> None:
    vllm = {"family": "llm", "name": "m", "source": "/", "target": "vllm", "mounted_at": "/models"}
    nvidia, ours = recipes.make(**vllm, layout="nvidia"), recipes.make(**vllm)
    assert isinstance(nvidia, LLMRecipe)
    assert isinstance(ours, LLMRecipe)
    assert refusal_of(nvidia) is None
    assert "add --layout nvidia" in (refusal_of(ours) or "")
