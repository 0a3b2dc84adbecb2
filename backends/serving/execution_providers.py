"""The choice of onnxruntime's execution providers from a model's instance group and accelerators.

Options have the names that NVIDIA's ONNX Runtime backend gives them:
https://github.com/triton-inference-server/onnxruntime_backend.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Config = Mapping[str, Any]
"""A model's configuration, as Triton passes it: JSON."""
Provider = tuple[str, dict[str, str]]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
_OPENVINO = "OpenVINOExecutionProvider"

CUDA_PARAMETERS = ("cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy", "do_copy_in_default_stream")
"""Options of the CUDA provider that are parameters of the model."""

_CONV_ALGO_SEARCHES = {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"}
_ARENA_STRATEGIES = {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"}
# Options that have another name in NVIDIA's backend than in onnxruntime.
_TENSORRT_NAMES = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}
_NO_CUDA = (
    "Install onnxruntime-gpu in the place of onnxruntime (docs/gpu.md, the extra gpu), or set the kind of the instance "
    "group to KIND_CPU."
)


def choose_providers(config: Config, kind: str, device: str, available: Sequence[str]) -> list[Provider]:
    """Return the providers to use, by preference. `kind` (`CPU` or `GPU`) and `device` (its number) are the instance's.

    Raises `ValueError` if a configured provider is unknown or not `available`.
    """
    accelerators = (config.get("optimization") or {}).get("execution_accelerators") or {}
    chosen: list[Provider] = []
    if kind == "GPU":
        cuda = _cuda_options(config.get("parameters") or {})
        for accelerator in accelerators.get("gpu_execution_accelerator", ()):
            name, parameters = accelerator.get("name"), dict(accelerator.get("parameters") or {})
            if name == "tensorrt":
                chosen.append((_TENSORRT, {"device_id": device, **_tensorrt_options(parameters)}))
            elif name == "cuda":
                cuda = parameters | cuda
            else:
                raise ValueError(f"The accelerator {name!r} is not known; on a GPU there are tensorrt and cuda.")
        chosen.append((CUDA, {**cuda, "device_id": device}))
    for accelerator in accelerators.get("cpu_execution_accelerator", ()):
        if (name := accelerator.get("name")) != "openvino":
            raise ValueError(f"The accelerator {name!r} is not known; on a CPU there is openvino.")
        chosen.append((_OPENVINO, dict(accelerator.get("parameters") or {})))
    for name, _ in chosen:
        if name not in available:
            why = f"{name} is configured, but onnxruntime has only {', '.join(available)} here."
            raise ValueError(f"{why} {_NO_CUDA}" if name == CUDA else why)
    return [*chosen, (CPU, {})]


def check_providers(chosen: Sequence[Provider], active: Sequence[str]) -> None:
    """Raise `ValueError` if a chosen provider is not `active` in the session that was opened with it.

    onnxruntime falls back to the CPU, with a line in its log, if it cannot load a provider's libraries.
    """
    for name, _ in chosen:
        if name not in active:
            raise ValueError(
                f"onnxruntime could not load {name}, and would run the model on {', '.join(active)} instead: its log "
                "names the library of CUDA or cuDNN that is missing."
            )


def _cuda_options(parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    options = {name: str(parameters[name].get("string_value", "")) for name in CUDA_PARAMETERS if name in parameters}
    for name, words in (("cudnn_conv_algo_search", _CONV_ALGO_SEARCHES), ("arena_extend_strategy", _ARENA_STRATEGIES)):
        if name in options:
            if options[name] not in words:
                raise ValueError(f"The parameter {name} is {options[name]!r}; it must be one of {', '.join(words)}.")
            options[name] = words[options[name]]
    return options


def _tensorrt_options(parameters: dict[str, str]) -> dict[str, str]:
    mode = parameters.pop("precision_mode", "FP32")
    if mode not in ("FP32", "FP16", "BF16", "INT8"):
        raise ValueError(f"The precision_mode {mode!r} is not known; there are FP32, FP16, BF16 and INT8.")
    precision = {} if mode == "FP32" else {f"trt_{mode.lower()}_enable": "1"}
    return precision | {_TENSORRT_NAMES.get(name, name): value for name, value in parameters.items()}
