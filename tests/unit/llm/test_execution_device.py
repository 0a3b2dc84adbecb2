"""The choice of a device by the instance group, and the refusals where onnxruntime cannot use it."""

import ctypes
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from backends.llm.engines import read_options
from backends.llm.ort import cuda_memory, execution_device
from backends.llm.ort.decoder_config import DecoderConfig
from backends.llm.ort.execution_device import CPU, ExecutionDevice, device_of
from backends.llm.ort.model_runner import OrtModelRunner
from backends.llm.ort.onnx_graph import Node, Value, encode_model

GIB = 2**30


def test_the_instance_group_chooses_the_provider() -> None:
    assert device_of(None) is CPU and CPU.providers() == ["CPUExecutionProvider"]
    gpu = device_of(read_options({}, 1).gpu)
    options = {"device_id": "1", "arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}
    assert gpu.providers() == [("CUDAExecutionProvider", options), "CPUExecutionProvider"]
    assert gpu.has_device_memory and (gpu.name, gpu.number) == ("cuda", 1)
    assert read_options({"engine": {"string_value": "vllm"}}, 1).gpu == 1


def start_on_gpu(path: Path, kv_type: type[np.floating[Any]]) -> None:
    """Start a runner on GPU 0, of a graph with one tensor of the KV cache."""
    past = Value("past_key_values.0.key", kv_type, ["b", 2, "s", 16])
    ids, present = Value("input_ids", np.int64, ["b", "n"]), Value("present.0.key", kv_type, ["b", 2, "s", 16])
    path.write_bytes(encode_model([Node("Identity", [past.name], [present.name])], [ids, past], [present]))
    config = DecoderConfig(
        model=path,
        num_layers=1,
        num_kv_heads=2,
        head_size=16,
        vocab_size=10,
        context_length=256,
        bos=None,
        eos=frozenset({1}),
        input_names={
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.key",
        },
        output_names={
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.key",
        },
    )
    OrtModelRunner(config, max_rows=1, context_length=256, threads=1, device=device_of(0))


def test_a_gpu_is_refused_where_onnxruntime_has_no_cuda(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"KIND_GPU.*onnxruntime has only .*CPUExecutionProvider.*tritonic\[gpu\]"):
        start_on_gpu(tmp_path / "model.onnx", np.float16)


@pytest.fixture
def cuda_without_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """An onnxruntime that has the provider, but goes on with the CPU, as it does if a library of CUDA is missing."""
    real = onnxruntime.InferenceSession

    def start(source: Any, options: Any, providers: Any, enable_fallback: int) -> onnxruntime.InferenceSession:
        assert not enable_fallback
        assert [name for name, _ in providers[:1]] == ["CUDAExecutionProvider"]
        return real(source, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", start)


@pytest.mark.usefixtures("cuda_without_libraries")
def test_onnxruntime_does_not_fall_back_to_the_cpu(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="onnxruntime has only CPUExecutionProvider here"):
        start_on_gpu(tmp_path / "model.onnx", np.float16)


@pytest.mark.usefixtures("cuda_without_libraries")
def test_a_model_for_the_cpu_is_refused_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution_device, "_require_cuda", lambda providers: None)
    with pytest.raises(ValueError, match=r"exported for the CPU.*--device cuda"):
        start_on_gpu(tmp_path / "model.onnx", np.float32)


class Driver:
    """Calls of `libcuda.so.1`, with the memory of one GPU of the given number."""

    def __init__(self, number: int = 1, error: int = 0) -> None:
        self.number, self.error = number, error
        self.contexts: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            if name == "cuDeviceGet":
                arguments[0]._obj.value = 40 + arguments[1]
                return 0 if arguments[1] == self.number else 101
            if name == "cuMemGetInfo_v2":
                assert self.contexts == ["retained", "current"]
                arguments[0]._obj.value, arguments[1]._obj.value = 8 * GIB, 24 * GIB
                return self.error
            if name == "cuDevicePrimaryCtxRetain":
                assert arguments[1].value == 41
            if name in ("cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2"):
                self.contexts.append("retained" if "Retain" in name else "current")
            if name in ("cuDevicePrimaryCtxRelease_v2", "cuCtxPopCurrent_v2"):
                self.contexts.pop()
            return 0

        return call


def test_a_gpu_gives_three_quarters_of_its_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    library = types.SimpleNamespace(**(vars(ctypes) | {"CDLL": lambda name: driver}))
    monkeypatch.setattr(cuda_memory, "ctypes", library)
    assert ExecutionDevice("cuda", 1).default_kv_memory() == 6 * GIB
    assert driver.contexts == []
    driver.error = 999
    with pytest.raises(ValueError, match=r"GPU 1 \(CUDA error 999\): set kv_memory"):
        ExecutionDevice("cuda", 1).default_kv_memory()
    assert driver.contexts == []
    with pytest.raises(ValueError, match=r"GPU 0 \(CUDA error 101\)"):
        cuda_memory.free_memory(0)


def test_a_machine_without_a_driver_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_memory, "_LIBRARY", "libcuda-missing.so.1")
    with pytest.raises(ValueError, match="NVIDIA's driver, cannot be loaded"):
        cuda_memory.free_memory(0)
