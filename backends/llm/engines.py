"""The table of engines. One more engine is a module with a function `load_engine`, and a line here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.llm.options import Options
from backends.llm.ort.options import OnnxRuntimeOptions
from backends.serving.config_parameters import string_values


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """The module of an engine and the class of its options.

    The module has `load_engine(folder, tokenizer, options) -> LoadedModel`. It is imported only if a model names the
    engine: no machine has the libraries of all engines.
    """

    module: str
    options: type[Options]


DEFAULT_ENGINE = "onnxruntime"
ENGINES = {
    "onnxruntime": EngineEntry("backends.llm.ort.engine_loader", OnnxRuntimeOptions),
    "vllm": EngineEntry("backends.llm.external.vllm", Options),
    "llmapi": EngineEntry("backends.llm.external.tensorrt_llm", Options),
}
"""By the name that the parameter `engine` of config.pbtxt has."""


def read_options(parameters: Mapping[str, Mapping[str, Any]], gpu: int | None = None) -> Options:
    """Parse `parameters` in Triton's form: `{"max_rows": {"string_value": "16"}}`. `gpu` is that of the instance.

    Return an object of the class that the table names. Unknown parameters are ignored: other components read them.
    Raises `ValueError` with a sentence that names the parameter.
    """
    values = string_values(parameters)
    engine = values.get("engine") or DEFAULT_ENGINE
    if engine not in ENGINES:
        raise ValueError(f"The parameter engine is {engine!r}; this backend has {', '.join(ENGINES)}.")
    return ENGINES[engine].options.parse(engine, values, gpu)
