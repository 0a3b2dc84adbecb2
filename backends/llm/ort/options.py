"""The `parameters` of config.pbtxt that the engine `onnxruntime` reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from backends.llm.options import Options, integer, megabytes, shared_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxRuntimeOptions(Options):
    """The parsed parameters. Without `kv_memory`, the caches take half of the available memory, on a GPU three
    quarters of what is free there.
    """

    threads: int = 0
    """Threads of a forward pass; 0 means one for each core, on a GPU one."""
    prefix_cache: int | None = None
    """Bytes of the prefix cache; None means a quarter of `kv_memory`."""

    @classmethod
    def parse(cls, engine: str, values: Mapping[str, str], gpu: int | None = None) -> Self:
        """Parse the parameters of a model, by name. Raises `ValueError` with a sentence that names the parameter."""
        return cls(
            engine=engine,
            gpu=gpu,
            threads=integer(values, "threads", 0, 0),
            prefix_cache=megabytes(values, "prefix_cache", 0),
            **shared_fields(values),
        )
