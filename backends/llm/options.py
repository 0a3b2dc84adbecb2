"""The `parameters` of config.pbtxt that this backend reads."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backends.llm.sampling_params import SamplingParams, parse_sampling_params
from backends.serving.config_parameters import string_values
from backends.serving.errors import GenerationError

# Each is a module with `load_engine(folder, tokenizer, options) -> Loaded`, imported only where it is wanted: no
# machine has the libraries of all of them.
ENGINE_LOADERS = {"onnxruntime": "backends.llm.ort.engine_loader"}


@dataclass(frozen=True, slots=True)
class Options:
    """`threads` 0 is one for each core; `context_length` None is the checkpoint's own; `sampling` is the default.

    `kv_memory` and `prefix_cache` are in bytes; None is half of what is available, and a quarter of that. A structure
    may take `structure_seconds` of a processor to compile, and `structure_memory` bytes.
    """

    engine: str = "onnxruntime"
    max_rows: int = 16
    max_waiting: int = 1024
    threads: int = 0
    context_length: int | None = None
    kv_memory: int | None = None
    prefix_cache: int | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    structure_seconds: int = 1
    structure_memory: int = 128 * 2**20


def read_options(parameters: Mapping[str, Mapping[str, Any]]) -> Options:
    """Read `parameters` as Triton hands them over: `{"max_rows": {"string_value": "16"}}`.

    Raises `ValueError` with a sentence that names the parameter. Parameters that others read are left alone.
    """
    defaults = Options()
    values = string_values(parameters)
    engine = values.get("engine") or defaults.engine
    if engine not in ENGINE_LOADERS:
        raise ValueError(f"The parameter engine is {engine!r}; this backend has {', '.join(ENGINE_LOADERS)}.")
    context_length = _integer(values, "context_length", 0, 2)
    return Options(
        engine=engine,
        max_rows=_integer(values, "max_rows", defaults.max_rows, 1),
        max_waiting=_integer(values, "max_waiting", defaults.max_waiting, 0),
        threads=_integer(values, "threads", defaults.threads, 0),
        context_length=context_length or None,
        kv_memory=_megabytes(values, "kv_memory", 1),
        prefix_cache=_megabytes(values, "prefix_cache", 0),
        structure_seconds=_integer(values, "structure_seconds", defaults.structure_seconds, 1),
        structure_memory=_megabytes(values, "structure_memory", 16) or defaults.structure_memory,
        sampling=_sampling(values.get("sampling_defaults") or "{}"),
    )


def _sampling(document: str) -> SamplingParams:
    try:
        return parse_sampling_params(document, 2**31)
    except GenerationError as error:
        raise ValueError(f"The parameter sampling_defaults is {document!r}: {error}") from error


def _megabytes(values: Mapping[str, str], name: str, low: int) -> int | None:
    """In bytes; None where nothing is said."""
    return _integer(values, name, low, low) * 2**20 if values.get(name) else None


def _integer(values: Mapping[str, str], name: str, default: int, low: int) -> int:
    text = values.get(name)
    if not text:
        return default
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"The parameter {name} is {text!r}; it must be an integer of at least {low}.")
    return value
