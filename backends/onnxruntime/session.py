"""An ONNX file, opened and compared with what config.pbtxt declares."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from backends.onnxruntime.batching import TensorMap, has_batch_dimension
from backends.onnxruntime.options import Config, Options
from backends.onnxruntime.providers import Provider

# As for language models (backends/llm/ort/model_runner.py): longer gains nothing where others work on the machine too.
_SPIN_MICROSECONDS = "10"
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
    """A model that runs."""

    def __init__(self, folder: Path, config: Config, options: Options, providers: Sequence[Provider]) -> None:
        """Open the file of a version folder.

        Raises `FileNotFoundError`, `ValueError` where the file and the configuration disagree, naming the tensor, or
        what onnxruntime raises.
        """
        path = folder / options.file
        if path.is_dir():
            path /= "model.onnx"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing.")
        self._session = ort.InferenceSession(str(path), _session_options(options), providers=list(providers))
        batched = has_batch_dimension(config)
        _check("input", config.get("input", ()), self._session.get_inputs(), batched=batched, every=True)
        _check("output", config.get("output", ()), self._session.get_outputs(), batched=batched, every=False)
        self._run_options = ort.RunOptions()
        if options.arena_shrinkage:
            self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", options.arena_shrinkage)

    def run(self, wanted: Collection[str], inputs: TensorMap) -> dict[str, npt.NDArray[np.generic]]:
        """Compute the outputs of these names. Texts are bytes on both sides. Raises what onnxruntime raises."""
        names = list(wanted)
        outputs = self._session.run(
            names, {name: _to_strings(value) for name, value in inputs.items()}, self._run_options
        )
        return {name: _to_bytes(value) for name, value in zip(names, outputs, strict=True)}


def _session_options(options: Options) -> ort.SessionOptions:
    made = ort.SessionOptions()
    made.intra_op_num_threads = options.intra_op_threads or len(os.sched_getaffinity(0))
    # Where operators run one after the other, threads between them would have nothing to do.
    made.inter_op_num_threads = options.inter_op_threads if options.is_parallel else 1
    made.execution_mode = ort.ExecutionMode.ORT_PARALLEL if options.is_parallel else ort.ExecutionMode.ORT_SEQUENTIAL
    made.graph_optimization_level = _LEVELS[options.graph_level]
    made.enable_cpu_mem_arena = options.memory_arena
    made.enable_mem_pattern = options.memory_pattern
    made.log_severity_level = 3
    made.add_session_config_entry("session.intra_op.allow_spinning", "1")
    made.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_MICROSECONDS)
    for name, value in options.session_config_entries.items():
        made.add_session_config_entry(name, value)
    return made


def _check(kind: str, declared: Sequence[Any], real: Sequence[Any], *, batched: bool, every: bool) -> None:
    """Compare names, types and shapes; `every` one of the file's tensors has to be declared."""
    found = {tensor.name: tensor for tensor in real}
    for tensor in declared:
        name = tensor["name"]
        if name not in found:
            raise ValueError(f"The model has no {kind} {name}; it has {', '.join(found)}.")
        _check_tensor(kind, name, tensor, found.pop(name), batched=batched)
    if every and found:
        raise ValueError(f"The {kind} {', '.join(found)} of the model is not declared.")


def _check_tensor(kind: str, name: str, declared: Any, real: Any, *, batched: bool) -> None:
    if _TYPES.get(real.type) != declared["data_type"]:
        raise ValueError(f"The {kind} {name} is declared as {declared['data_type']}, and the model has {real.type}.")
    reshape = declared.get("reshape")
    # `reshape { }` stands for no dimension beside that of the batch.
    dims = [int(dim) for dim in (declared["dims"] if reshape is None else reshape.get("shape", ()))]
    shape = [dim if isinstance(dim, int) and dim > 0 else -1 for dim in real.shape]
    if batched and shape and shape[0] != -1:
        raise ValueError(f"The {kind} {name} has the fixed shape {shape}; where max_batch_size is set, it must batch.")
    whole = [-1, *dims] if batched else dims
    # A model that knows nothing of a shape, not even how many dimensions there are, says [].
    fits = len(whole) == len(shape) and all(-1 in pair or pair[0] == pair[1] for pair in zip(whole, shape, strict=True))
    if shape and not fits:
        raise ValueError(f"The {kind} {name} is declared as {whole}, batch included, and the model has {shape}.")


def _to_strings(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    if array.dtype != np.object_:
        return array
    texts = [bytes(text).decode("utf-8") if isinstance(text, bytes) else str(text) for text in array.reshape(-1)]
    made: npt.NDArray[np.generic] = np.array(texts, np.object_).reshape(array.shape)
    return made


def _to_bytes(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    if array.dtype.kind not in "OU":
        return array
    texts = [str(text).encode("utf-8") for text in array.reshape(-1)]
    made: npt.NDArray[np.generic] = np.array(texts, np.object_).reshape(array.shape)
    return made
