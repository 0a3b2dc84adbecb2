"""The choice of execution providers from instance group and accelerators."""

from typing import Any

import pytest

from backends.serving.execution_providers import choose_providers

ALL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "OpenVINOExecutionProvider", "CPUExecutionProvider"]


def choose(
    kind: str = "GPU", available: list[str] | None = None, parameters: dict[str, str] | None = None, **accelerators: Any
) -> list[tuple[str, dict[str, str]]]:
    config = {
        "parameters": {name: {"string_value": value} for name, value in (parameters or {}).items()},
        "optimization": {"execution_accelerators": accelerators},
    }
    return choose_providers(config, kind, "1", available or ALL)


def test_a_cpu_has_no_accelerator_unless_one_is_configured() -> None:
    assert choose("CPU") == [("CPUExecutionProvider", {})]
    names = [name for name, _ in choose("CPU", cpu_execution_accelerator=[{"name": "openvino"}])]
    assert names == ["OpenVINOExecutionProvider", "CPUExecutionProvider"]


def test_a_gpu_has_cuda_with_its_options() -> None:
    providers = choose(
        parameters={"cudnn_conv_algo_search": "1", "arena_extend_strategy": "1", "gpu_mem_limit": "1000"},
        gpu_execution_accelerator=[{"name": "cuda", "parameters": {"use_ep_level_unified_stream": "1"}}],
    )
    assert providers == [
        (
            "CUDAExecutionProvider",
            {
                "device_id": "1",
                "cudnn_conv_algo_search": "HEURISTIC",
                "arena_extend_strategy": "kSameAsRequested",
                "gpu_mem_limit": "1000",
                "use_ep_level_unified_stream": "1",
            },
        ),
        ("CPUExecutionProvider", {}),
    ]


def test_tensorrt_goes_before_cuda_under_onnxruntimes_names() -> None:
    parameters = {"precision_mode": "FP16", "max_workspace_size_bytes": "5", "trt_engine_cache_enable": "1"}
    (name, options), *others = choose(gpu_execution_accelerator=[{"name": "tensorrt", "parameters": parameters}])
    assert name == "TensorrtExecutionProvider"
    assert options == {
        "device_id": "1",
        "trt_fp16_enable": "1",
        "trt_max_workspace_size": "5",
        "trt_engine_cache_enable": "1",
    }
    assert [other for other, _ in others] == ["CUDAExecutionProvider", "CPUExecutionProvider"]


def test_unavailable_providers_are_refused() -> None:
    with pytest.raises(ValueError, match="CUDAExecutionProvider is configured"):
        choose(available=["CPUExecutionProvider"])
    with pytest.raises(ValueError, match="'abacus' is not known"):
        choose(gpu_execution_accelerator=[{"name": "abacus"}])
    with pytest.raises(ValueError, match="precision_mode"):
        choose(gpu_execution_accelerator=[{"name": "tensorrt", "parameters": {"precision_mode": "FP3"}}])
    with pytest.raises(ValueError, match="cudnn_conv_algo_search"):
        choose(parameters={"cudnn_conv_algo_search": "7"})
