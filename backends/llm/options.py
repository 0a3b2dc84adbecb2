"""The `parameters` of config.pbtxt that every engine has, parsed and checked once at load.

`engines.read_options` reads them. An engine with parameters of its own has a subclass of `Options`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from backends.llm.sampling_params import SamplingParams, parse_sampling_params
from backends.serving.errors import GenerationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The parsed parameters. The field names are the names in config.pbtxt, except `sampling` (`sampling_defaults`).

    `gpu` is no parameter: Triton chooses it by the instance group.
    """

    engine: str = "onnxruntime"
    gpu: int | None = None
    """Number of the GPU that the instance group chose for this instance; None: it chose none."""
    max_rows: int = 16
    """Slots: sequences that run at the same time."""
    max_waiting: int = 1024
    """Sequences that may wait for a slot; more are refused as overloaded."""
    context_length: int | None = None
    """Tokens of prompt and answer together; None means the checkpoint's own limit."""
    kv_memory: int | None = None
    """Bytes of the KV cache and the prefix cache together; None means the engine's own default."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    """The values of the sampling parameters that a request leaves out."""
    structure_seconds: int = 1
    """Processor seconds that compiling one grammar may take."""
    structure_memory: int = 128 * 2**20
    """Bytes that compiling one grammar may take."""

    @classmethod
    def parse(cls, engine: str, values: Mapping[str, str], gpu: int | None = None) -> Self:
        """Parse the parameters of a model, by name. Raises `ValueError` with a sentence that names the parameter."""
        return cls(engine=engine, gpu=gpu, **shared_fields(values))


def shared_fields(values: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields that are parameters. Raises `ValueError` with a sentence that names the parameter."""
    defaults = Options()
    return {
        "max_rows": integer(values, "max_rows", defaults.max_rows, 1),
        "max_waiting": integer(values, "max_waiting", defaults.max_waiting, 0),
        "context_length": integer(values, "context_length", 0, 2) or None,
        "kv_memory": megabytes(values, "kv_memory", 1),
        "structure_seconds": integer(values, "structure_seconds", defaults.structure_seconds, 1),
        "structure_memory": megabytes(values, "structure_memory", 16) or defaults.structure_memory,
        "sampling": _sampling(values.get("sampling_defaults") or "{}"),
    }


def megabytes(values: Mapping[str, str], name: str, low: int) -> int | None:
    """Parse a number of megabytes, and return bytes; None if the parameter is absent or empty. Raises `ValueError`."""
    return integer(values, name, low, low) * 2**20 if values.get(name) else None


def integer(values: Mapping[str, str], name: str, default: int, low: int) -> int:
    """Parse an integer of at least `low`; `default` if the parameter is absent or empty. Raises `ValueError`."""
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


def _sampling(document: str) -> SamplingParams:
    try:
        return parse_sampling_params(document, 2**31)
    except GenerationError as error:
        raise ValueError(f"The parameter sampling_defaults is {document!r}: {error}") from error
