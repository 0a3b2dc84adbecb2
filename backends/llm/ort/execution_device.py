"""The device that an engine runs on: onnxruntime's execution provider, its options, and the free memory."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from backends.llm.ort.cuda_memory import free_memory
from backends.llm.system_memory import available_memory
from backends.serving.execution_providers import CPU as CPU_PROVIDER
from backends.serving.execution_providers import CUDA

_SPIN_MICROSECONDS = "10"
"""Time that an onnxruntime thread spins between two operators before it sleeps, in microseconds.

Spinning a little is a quarter faster than sleeping at once. On an idle machine, 100 microseconds gain another tenth
with one stream and nothing with more; on a busy one with four streams, they cost a fifth more CPU per token, and then
a third of the throughput.
"""

_CUDA_OPTIONS: Mapping[str, str] = {
    # The default doubles the arena with each extension, and would take the memory of other models.
    "arena_extend_strategy": "kSameAsRequested",
    # Decoders have no convolutions worth an exhaustive search at each new shape.
    "cudnn_conv_algo_search": "HEURISTIC",
}


@dataclass(frozen=True, slots=True)
class ExecutionDevice:
    """The CPU, or one GPU. `name` and `number` are those of onnxruntime's devices.

    If `has_device_memory`, the KV cache is allocated by onnxruntime; tests say so of the CPU, to run the same code.
    """

    name: Literal["cpu", "cuda"] = "cpu"
    number: int = 0
    has_device_memory: bool = False

    def default_kv_memory(self) -> int:
        """Return half of the available memory, on a GPU three quarters of what is free there, in bytes.

        Raises `ValueError` if the driver does not tell it.
        """
        return available_memory() // 2 if self.name == "cpu" else free_memory(self.number) * 3 // 4

    def create_session(self, model: Path | bytes, threads: int = 0) -> ort.InferenceSession:
        """Open a model, or a graph of bytes. `threads` 0 means one for each core, on a GPU one.

        Raises what onnxruntime raises, and `ValueError` if onnxruntime would run it on the CPU instead of a GPU.
        """
        if self.name == "cuda":
            ort.preload_dlls()  # finds CUDA and cuDNN among Python's packages
            _require_cuda([*ort.get_available_providers(), *(device.ep_name for device in ort.get_ep_devices())])
        source = model if isinstance(model, bytes) else str(model)
        session = ort.InferenceSession(
            source, self._session_options(threads), providers=self.providers(), enable_fallback=0
        )
        if self.name == "cuda":  # onnxruntime goes on with the CPU if a library of CUDA cannot be loaded
            _require_cuda(session.get_providers())
        return session

    def providers(self) -> list[str | tuple[str, dict[str, str]]]:
        """Return the execution providers, by preference. On a GPU, shapes are computed by the CPU's."""
        if self.name == "cpu":
            return [CPU_PROVIDER]
        return [(CUDA, {"device_id": str(self.number), **_CUDA_OPTIONS}), CPU_PROVIDER]

    def _session_options(self, threads: int) -> ort.SessionOptions:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or (1 if self.name == "cuda" else len(os.sched_getaffinity(0)))
        options.inter_op_num_threads = 1
        # onnxruntime would keep a memory pattern for each set of shapes, and the mask's shape changes with every step.
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_MICROSECONDS)
        return options


CPU = ExecutionDevice()


def device_of(gpu: int | None) -> ExecutionDevice:
    """Return the device with the number `gpu`; None means the CPU."""
    return CPU if gpu is None else ExecutionDevice("cuda", gpu, has_device_memory=True)


def _require_cuda(providers: list[str]) -> None:
    if CUDA not in providers:
        raise ValueError(
            "The instance group asks for a GPU (KIND_GPU), and onnxruntime has only "
            f"{', '.join(dict.fromkeys(providers))} here. "
            "Install onnxruntime-gpu with the libraries of CUDA and cuDNN that it needs (pip uninstall onnxruntime, "
            "then pip install 'tritonic[gpu]'), or set KIND_CPU."
        )
