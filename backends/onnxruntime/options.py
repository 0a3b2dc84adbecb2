"""The session options of `config.pbtxt`, by the names that NVIDIA's ONNX Runtime backend gives them.

https://github.com/triton-inference-server/onnxruntime_backend: "Other Optimization Options with ONNX Runtime".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from backends.serving.execution_providers import CUDA_PARAMETERS, Config

_FLAGS = {"1": True, "true": True, "0": False, "false": False}
_SHRINKAGE = "memory.enable_memory_arena_shrinkage"
_NUMBERS = ("intra_op_thread_count", "inter_op_thread_count", "execution_mode")
_SWITCHES = ("enable_mem_arena", "enable_mem_pattern")
_SESSION_CONFIG_ENTRIES = ("session.use_device_allocator_for_initializers",)
# Parameters that the gateway and people read.
_GATEWAY_PARAMETERS = ("component", "precision")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a session. A thread count of 0 means one thread for each core that this process may use.

    `graph_level` selects the graph optimizations: -1 (basic), 1 (extended), 2 (none), or 0 (all). `unknown_parameters`
    are known neither to this backend nor to NVIDIA's.
    """

    file: str = "model.onnx"
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    is_parallel: bool = False
    graph_level: int = 0
    memory_arena: bool = True
    memory_pattern: bool = True
    arena_shrinkage: str | None = None
    session_config_entries: Mapping[str, str] = field(default_factory=dict)
    unknown_parameters: tuple[str, ...] = ()


def read_options(config: Config) -> Options:
    """Read a configuration. Raises `ValueError` with a sentence that names the parameter."""
    values = {name: str(value.get("string_value", "")) for name, value in config.get("parameters", {}).items()}
    known = {*_NUMBERS, *_SWITCHES, *_SESSION_CONFIG_ENTRIES, *CUDA_PARAMETERS, *_GATEWAY_PARAMETERS, _SHRINKAGE}
    mode = _number(values, "execution_mode")
    if mode not in (0, 1):
        raise ValueError(f"The parameter execution_mode is {mode}; it must be 0 (sequential) or 1 (parallel).")
    return Options(
        file=config.get("default_model_filename") or "model.onnx",
        intra_op_threads=_number(values, "intra_op_thread_count"),
        inter_op_threads=_number(values, "inter_op_thread_count"),
        is_parallel=mode == 1,
        graph_level=_level(config),
        memory_arena=_flag(values, "enable_mem_arena"),
        memory_pattern=_flag(values, "enable_mem_pattern"),
        arena_shrinkage=values.get(_SHRINKAGE) or None,
        session_config_entries={name: values[name] for name in _SESSION_CONFIG_ENTRIES if name in values},
        unknown_parameters=tuple(sorted(values.keys() - known)),
    )


def _level(config: Config) -> int:
    level = int(((config.get("optimization") or {}).get("graph") or {}).get("level", 0))
    # Any other level means all optimizations, as in NVIDIA's backend.
    return level if level in (-1, 1, 2) else 0


def _number(values: Mapping[str, str], name: str) -> int:
    text = values.get(name, "").strip() or "0"
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"The parameter {name} is {text!r}; it must be a number from 0 on.")
    return int(text)


def _flag(values: Mapping[str, str], name: str) -> bool:
    text = values.get(name, "").strip().lower() or "1"
    if text not in _FLAGS:
        raise ValueError(f"The parameter {name} is {text!r}; it must be 1 or 0.")
    return _FLAGS[text]
