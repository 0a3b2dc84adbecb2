"""The `parameters` of `config.pbtxt` that this backend reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backends.serving.config_parameters import integer_value, json_value, string_values, thread_count

ENGINES = ("onnxruntime", "tensorrt")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a model, as docs/architecture.md describes them.

    `matryoshka` lists the widths to which vectors can be shortened; True allows every width up to `dimensions`.
    `truncate_prompt_tokens` is the number of tokens to which longer inputs are cut if a request does not set it: -1 for
    the context length, None to refuse them. `max_waiting` bounds the unanswered inputs. `max_batch_tokens` and
    `max_batch_texts` bound the batches of the network; 0 is the default of its device, and no bound. `encoder` names
    the Triton model of the engine `tensorrt`, and `vocab_size` is the number of its token ids.
    """

    context_length: int
    dimensions: int
    matryoshka: bool | tuple[int, ...] = False
    normalized: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    lowercase: bool = False
    truncate_prompt_tokens: int | None = None
    max_waiting: int = 8192
    threads: int = 0
    max_batch_tokens: int = 0
    max_batch_texts: int = 0
    encoder: str | None = None
    vocab_size: int = 0

    @property
    def num_threads(self) -> int:
        """Threads that compute: `threads`, or one for each core that this process may use if that is 0."""
        return thread_count(self.threads)


def read_options(parameters: Mapping[str, Mapping[str, Any]]) -> Options:
    """Read `parameters` as Triton passes them: `{"dimensions": {"string_value": "384"}}`.

    Ignores parameters that others read. Raises `ValueError` with a sentence that names the parameter.
    """
    values = string_values(parameters)
    engine = values.get("engine") or ENGINES[0]
    if engine not in ENGINES:
        raise ValueError(f"The parameter engine is {engine!r}; this backend has {', '.join(ENGINES)}.")
    prompts = json_value(values, "prompts", {})
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise ValueError(f"The parameter prompts is {prompts!r}; it must be an object of texts.")
    default = values.get("default_prompt") or None
    if default is not None and default not in prompts:
        raise ValueError(f"The parameter default_prompt is {default!r}, which is none of the prompts.")
    context_length = integer_value(values, "context_length", None, 1)
    return Options(
        context_length=context_length,
        dimensions=integer_value(values, "dimensions", None, 1),
        matryoshka=_matryoshka(values),
        normalized=_flag(values, "normalized"),
        prompts=prompts,
        default_prompt=default,
        lowercase=_flag(values, "lowercase"),
        truncate_prompt_tokens=_truncate_prompt_tokens(values, context_length),
        max_waiting=integer_value(values, "max_waiting", 8192, 0),
        threads=integer_value(values, "threads", 0, 0),
        max_batch_tokens=integer_value(values, "max_batch_tokens", 0, 0),
        max_batch_texts=integer_value(values, "max_batch_texts", 0, 0),
        encoder=_encoder(values) if engine == "tensorrt" else None,
        vocab_size=integer_value(values, "vocab_size", None, 1) if engine == "tensorrt" else 0,
    )


def _matryoshka(values: Mapping[str, str]) -> bool | tuple[int, ...]:
    value = json_value(values, "matryoshka", False)
    if isinstance(value, bool):
        return value
    if isinstance(value, list) and all(isinstance(width, int) and width > 0 for width in value):
        return tuple(value)
    raise ValueError(f"The parameter matryoshka is {value!r}; it must be true, false or a list of widths.")


def _truncate_prompt_tokens(values: Mapping[str, str], context_length: int) -> int | None:
    name = "truncate_prompt_tokens"
    value = json_value(values, name, None)
    if value is None or (type(value) is int and (value == -1 or 1 <= value <= context_length)):
        return value
    raise ValueError(f"The parameter {name} is {value!r}; it must be -1 or from 1 to {context_length}.")


def _encoder(values: Mapping[str, str]) -> str:
    name = values.get("encoder")
    if not name:
        raise ValueError("The parameter encoder is missing: the engine tensorrt is a Triton model, which it names.")
    return name


def _flag(values: Mapping[str, str], name: str) -> bool:
    value = json_value(values, name, False)
    if not isinstance(value, bool):
        raise ValueError(f"The parameter {name} is {value!r}; it must be true or false.")
    return value
