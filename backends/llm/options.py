"""The `parameters` of config.pbtxt that this backend reads, parsed and checked once at load."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backends.llm.sampling_params import SamplingParams, parse_sampling_params
from backends.serving.config_parameters import string_values
from backends.serving.errors import GenerationError

ENGINE_LOADERS = {"onnxruntime": "backends.llm.ort.engine_loader"}
"""Engine names and their modules. Each module has `load_engine(folder, tokenizer, options) -> LoadedModel`, and is
imported only if it is used: no machine has the libraries of all engines."""


@dataclass(frozen=True, slots=True)
class Options:
    """The parsed parameters. The field names are the names in config.pbtxt, except `sampling` (`sampling_defaults`)."""

    engine: str = "onnxruntime"
    max_rows: int = 16
    """Slots: sequences that run at the same time."""
    max_waiting: int = 1024
    """Sequences that may wait for a slot; more are refused as overloaded."""
    threads: int = 0
    """Threads of a forward pass; 0 means one for each core."""
    context_length: int | None = None
    """Tokens of prompt and answer together; None means the checkpoint's own limit."""
    kv_memory: int | None = None
    """Bytes of the KV cache and the prefix cache together; None means half of the available memory."""
    prefix_cache: int | None = None
    """Bytes of the prefix cache; None means a quarter of `kv_memory`."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    """The values of the sampling parameters that a request leaves out."""
    structure_seconds: int = 1
    """Processor seconds that compiling one grammar may take."""
    structure_memory: int = 128 * 2**20
    """Bytes that compiling one grammar may take."""


def read_options(parameters: Mapping[str, Mapping[str, Any]]) -> Options:
    """Parse `parameters` in Triton's form: `{"max_rows": {"string_value": "16"}}`.

    Unknown parameters are ignored: other components read them. Raises `ValueError` with a sentence that names the
    parameter.
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
    """Parse a number of megabytes, and return bytes; None if the parameter is absent or empty."""
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
