"""The choice of onnxruntime's execution providers from a model's instance group and accelerators."""

from collections.abc import Mapping, Sequence

from backends.onnxruntime.options import Config, Options

Provider = tuple[str, dict[str, str]]

CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
_OPENVINO = "OpenVINOExecutionProvider"

_CONV_ALGO_SEARCHES = {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"}
_ARENA_STRATEGIES = {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"}
# Options that have another name in NVIDIA's backend than in onnxruntime.
_TENSORRT_NAMES = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}


def choose_providers(
    config: Config, options: Options, kind: str, device: str, available: Sequence[str]
) -> list[Provider]:
    """Return the providers to use, by preference. `kind` (`CPU` or `GPU`) and `device` (its number) are the instance's.

    Raises `ValueError` if a configured provider is unknown or not `available`.
    """
    accelerators = (config.get("optimization") or {}).get("execution_accelerators") or {}
    chosen: list[Provider] = []
    if kind == "GPU":
        cuda = _cuda_options(options.cuda_options)
        for accelerator in accelerators.get("gpu_execution_accelerator", ()):
            name, parameters = accelerator.get("name"), dict(accelerator.get("parameters") or {})
            if name == "tensorrt":
                chosen.append((_TENSORRT, {"device_id": device, **_tensorrt_options(parameters)}))
            elif name == "cuda":
                cuda |= parameters
            else:
                raise ValueError(f"The accelerator {name!r} is not known; on a GPU there are tensorrt and cuda.")
        chosen.append((_CUDA, {"device_id": device, **cuda}))
    for accelerator in accelerators.get("cpu_execution_accelerator", ()):
        if (name := accelerator.get("name")) != "openvino":
            raise ValueError(f"The accelerator {name!r} is not known; on a CPU there is openvino.")
        chosen.append((_OPENVINO, dict(accelerator.get("parameters") or {})))
    for name, _ in chosen:
        if name not in available:
            raise ValueError(f"{name} is configured, but onnxruntime has only {', '.join(available)} here.")
    return [*chosen, (CPU, {})]


def _cuda_options(values: Mapping[str, str]) -> dict[str, str]:
    options = dict(values)
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
