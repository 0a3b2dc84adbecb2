"""An onnxruntime session of an ONNX file whose tensors match the declarations of `config.pbtxt`."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from backends.onnxruntime.batching import TensorMap, has_batch_dimension
from backends.onnxruntime.options import Options
from backends.serving.execution_providers import Config, Provider, check_providers

_SPIN_MICROSECONDS = "10"
"""Time that an idle thread spins, in microseconds. As in backends/llm/ort/model_runner.py, more gains nothing on a
machine that also does other work."""
_LEVELS = {
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}


class Session:
    """A loaded model."""

    def __init__(self, folder: Path, config: Config, options: Options, providers: Sequence[Provider]) -> None:
        """Open the ONNX file of a version folder.

        Raises `FileNotFoundError`, `ValueError` naming a tensor whose declaration does not match the file, or what
        onnxruntime raises.
        """
        path = folder / options.file
        if path.is_dir():
            path /= "model.onnx"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing.")
        self._session = ort.InferenceSession(str(path), _session_options(options), providers=list(providers))
        check_providers(providers, self._session.get_providers())
        batched = has_batch_dimension(config)
        _check("input", config.get("input", ()), self._session.get_inputs(), batched=batched, require_all=True)
        _check("output", config.get("output", ()), self._session.get_outputs(), batched=batched, require_all=False)
        self._run_options = ort.RunOptions()
        if options.arena_shrinkage:
            self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", options.arena_shrinkage)

    def run(self, output_names: Collection[str], inputs: TensorMap) -> dict[str, npt.NDArray[np.generic]]:
        """Return the named outputs. Strings are bytes in inputs and outputs. Raises what onnxruntime raises."""
        names = list(output_names)
        outputs = self._session.run(
            names, {name: _to_strings(value) for name, value in inputs.items()}, self._run_options
        )
        return {name: _to_bytes(value) for name, value in zip(names, outputs, strict=True)}


def _session_options(options: Options) -> ort.SessionOptions:
    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = options.intra_op_threads or len(os.sched_getaffinity(0))
    # If operators run one after the other, threads between operators have nothing to do.
    session_options.inter_op_num_threads = options.inter_op_threads if options.is_parallel else 1
    session_options.execution_mode = (
        ort.ExecutionMode.ORT_PARALLEL if options.is_parallel else ort.ExecutionMode.ORT_SEQUENTIAL
    )
    session_options.graph_optimization_level = _LEVELS[options.graph_level]
    session_options.enable_cpu_mem_arena = options.memory_arena
    session_options.enable_mem_pattern = options.memory_pattern
    session_options.log_severity_level = 3
    session_options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    session_options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_MICROSECONDS)
    for name, value in options.session_config_entries.items():
        session_options.add_session_config_entry(name, value)
    return session_options


def _check(kind: str, declared: Sequence[Any], real: Sequence[Any], *, batched: bool, require_all: bool) -> None:
    """Compare names, types and shapes. With `require_all` each tensor of the file must be declared."""
    undeclared = {tensor.name: tensor for tensor in real}
    for tensor in declared:
        name = tensor["name"]
        if name not in undeclared:
            raise ValueError(f"The model has no {kind} {name}; it has {', '.join(undeclared)}.")
        _check_tensor(kind, name, tensor, undeclared.pop(name), batched=batched)
    if require_all and undeclared:
        raise ValueError(f"The {kind} {', '.join(undeclared)} of the model is not declared.")


def _check_tensor(kind: str, name: str, declared: Any, real: Any, *, batched: bool) -> None:
    if _TYPES.get(real.type) != declared["data_type"]:
        raise ValueError(f"The {kind} {name} is declared as {declared['data_type']}, and the model has {real.type}.")
    reshape = declared.get("reshape")
    # `reshape { }` means no dimension but that of the batch.
    dims = [int(dim) for dim in (declared["dims"] if reshape is None else reshape.get("shape", ()))]
    shape = [dim if isinstance(dim, int) and dim > 0 else -1 for dim in real.shape]
    if batched and shape and shape[0] != -1:
        raise ValueError(f"The {kind} {name} has the fixed shape {shape}; where max_batch_size is set, it must batch.")
    expected = [-1, *dims] if batched else dims
    # A file that states no shape, not even the number of dimensions, has [].
    matches = len(expected) == len(shape) and all(
        -1 in pair or pair[0] == pair[1] for pair in zip(expected, shape, strict=True)
    )
    if shape and not matches:
        raise ValueError(f"The {kind} {name} is declared as {expected}, batch included, and the model has {shape}.")


def _to_strings(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    if array.dtype != np.object_:
        return array
    texts = [bytes(text).decode("utf-8") if isinstance(text, bytes) else str(text) for text in array.reshape(-1)]
    converted: npt.NDArray[np.generic] = np.array(texts, np.object_).reshape(array.shape)
    return converted


def _to_bytes(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    if array.dtype.kind not in "OU":
        return array
    texts = [str(text).encode("utf-8") for text in array.reshape(-1)]
    converted: npt.NDArray[np.generic] = np.array(texts, np.object_).reshape(array.shape)
    return converted
