"""Sampling parameters of one request: the JSON object of the tensor `sampling_parameters`, parsed and checked.

The names and meanings are those of vLLM's `SamplingParams`.
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from backends.serving.errors import InvalidValue, UnsupportedOption
from backends.serving.scalar_values import parse_boolean, parse_integer, parse_number

DEFAULT_MAX_TOKENS = 16
"""vLLM's default, for requests without the tensor `sampling_parameters`. Without a limit, a caller of `/generate` could
start minutes of work by accident, which Triton would finish even after the caller disconnects."""
MAX_N = 128
MAX_STOP_STRINGS = 4
MAX_STOP_CHARACTERS = 1024
MAX_STOP_TOKENS = 128
MAX_LOGIT_BIASES = 1024
MAX_LOGPROBS = 20
MAX_DOCUMENT_BYTES = 4_194_304
"""Bytes of the JSON object: enough for a structure of `MAX_STRUCTURE_CHARACTERS`, escaped twice."""
MAX_STRUCTURE_CHARACTERS = 262_144
MAX_STRUCTURE_VALUES = 100_000
"""JSON values of one option. Python parses 100,000 in 10 ms, and no decode step runs meanwhile."""
MAX_REGEX_CHARACTERS = 16_384
MAX_GRAMMAR_CHARACTERS = 65_536


StructuredOutputsKind = Literal["json", "regex", "choice", "grammar", "structural_tag"]


@dataclass(frozen=True, slots=True)
class StructuredOutputsParams:
    """The structure that an answer must have.

    `text` is, by `kind`: a JSON schema, a regular expression, a JSON list of strings, a grammar in Lark or GBNF, or a
    structural tag as JSON.
    """

    kind: StructuredOutputsKind
    text: str


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The parameters of one request. The field names are those of the JSON object, with vLLM's meaning.

    - `temperature` 0 and `top_p` 0 choose the likeliest token. `top_k` 0 or -1, `top_p` 1 and `min_p` 0 have no effect.
    - Answer number i of `n`, from 0, draws with `seed` + i.
    - The presence and frequency penalties count generated tokens; `repetition_penalty` counts the prompt too.
    - `max_tokens` None means as many as the context has room for; 0 computes the prompt and generates nothing.
    - `logit_bias` holds pairs of a token id and the number that is added to its logit.
    - `logprobs` and `prompt_logprobs` count the likeliest tokens to report per position; 0 reports the text's own token
      alone, None nothing.
    - `lora_name` is one of the engine's adapters.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    seed: int | None = None
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    min_tokens: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    structured_outputs: StructuredOutputsParams | None = None
    lora_name: str | None = None


OPTION_NAMES = frozenset(field.name for field in fields(SamplingParams))


def parse_sampling_params(
    document: bytes | str,
    vocab_size: int,
    defaults: SamplingParams | None = None,
    adapters: Collection[str] = (),
) -> SamplingParams:
    """Parse the JSON object of the tensor `sampling_parameters`. A member that is null counts as absent.

    Absent members are taken from `defaults`, the model's own. `adapters` are the LoRA adapters of the engine. Raises
    `InvalidValue` or `UnsupportedOption` with the name of the member at fault.
    """
    if len(document) > MAX_DOCUMENT_BYTES:
        raise InvalidValue(
            f"This has {len(document)} bytes; at most {MAX_DOCUMENT_BYTES} are read.", "sampling_parameters"
        )
    try:
        options = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"This is not JSON: {error}.", "sampling_parameters") from None
    if not isinstance(options, dict):
        raise InvalidValue("This must be a JSON object.", "sampling_parameters")
    return _read(options, vocab_size, defaults or SamplingParams(), adapters)


def sampling_params_from_request(
    parameters: Mapping[str, Any], vocab_size: int, defaults: SamplingParams, adapters: Collection[str] = ()
) -> SamplingParams:
    """Parse request parameters, which replace the tensor `sampling_parameters`; as `parse_sampling_params`.

    If neither they nor `defaults` set `max_tokens`, it is `DEFAULT_MAX_TOKENS`.
    """
    if defaults.max_tokens is None:
        defaults = replace(defaults, max_tokens=max(DEFAULT_MAX_TOKENS, defaults.min_tokens))
    return _read(parameters, vocab_size, defaults, adapters)


def _read(
    options: Mapping[str, Any], vocab_size: int, defaults: SamplingParams, adapters: Collection[str]
) -> SamplingParams:
    for name in options:
        if name not in OPTION_NAMES or (name == "lora_name" and not adapters):
            raise UnsupportedOption(f"This model has no option {name[:64]!r}.", name[:64])
    checked = {name: _check(name, value, vocab_size) for name, value in options.items() if value is not None}
    sampling = replace(defaults, **checked)
    if sampling.lora_name is not None and sampling.lora_name not in adapters:
        raise InvalidValue(
            f"This model has no adapter {sampling.lora_name[:64]!r}, only {', '.join(sorted(adapters))}.", "lora_name"
        )
    if sampling.max_tokens is not None and sampling.min_tokens > sampling.max_tokens:
        raise InvalidValue(f"This is more than max_tokens, which is {sampling.max_tokens}.", "min_tokens")
    return sampling


def _check(name: str, value: Any, vocab_size: int) -> Any:
    match name:
        case "max_tokens":
            return parse_integer(name, value, 0, 2**63 - 1)
        case "temperature":
            return parse_number(name, value, 0.0, math.inf)
        case "top_p":
            return parse_number(name, value, 0.0, 1.0)
        case "top_k":
            return max(0, parse_integer(name, value, -1, 2**31 - 1))
        case "min_p":
            return parse_number(name, value, 0.0, 1.0)
        case "stop":
            return _stop(name, value)
        case "stop_token_ids":
            return _stop_token_ids(name, value, vocab_size)
        case "min_tokens":
            return parse_integer(name, value, 0, 2**63 - 1)
        case "logit_bias":
            return _logit_bias(name, value, vocab_size)
        case "logprobs" | "prompt_logprobs":
            return parse_integer(name, value, 0, MAX_LOGPROBS)
        case "structured_outputs":
            return _structure(name, value)
        case "lora_name":
            if not isinstance(value, str):
                raise InvalidValue("This must be a string.", name)
            return value
        case "seed":
            return parse_integer(name, value, -(2**63), 2**63 - 1)
        case "n":
            return parse_integer(name, value, 1, MAX_N)
        case "presence_penalty" | "frequency_penalty":
            return parse_number(name, value, -2.0, 2.0)
        case "repetition_penalty":
            return parse_number(name, value, 0.01, math.inf)  # with less, logits become infinite
        case _:
            return parse_boolean(name, value)


def _stop(name: str, value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise InvalidValue("This must be a string, or a list of strings.", name)
    if len(stops) > MAX_STOP_STRINGS:
        raise InvalidValue(f"At most {MAX_STOP_STRINGS} strings may be given, not {len(stops)}.", name)
    if any(not stop or len(stop) > MAX_STOP_CHARACTERS for stop in stops):
        raise InvalidValue(f"Each string must have 1 to {MAX_STOP_CHARACTERS} characters.", name)
    return tuple(stops)


def _stop_token_ids(name: str, value: Any, vocab_size: int) -> tuple[int, ...]:
    value = _parse_if_string(name, value)
    if not isinstance(value, list) or len(value) > MAX_STOP_TOKENS:
        raise InvalidValue(f"This must be a list of at most {MAX_STOP_TOKENS} token ids.", name)
    return tuple(parse_integer(name, token, 0, vocab_size - 1) for token in value)


def _logit_bias(name: str, value: Any, vocab_size: int) -> tuple[tuple[int, float], ...]:
    value = _parse_if_string(name, value)
    if not isinstance(value, dict) or len(value) > MAX_LOGIT_BIASES:
        raise InvalidValue(f"This must be an object with at most {MAX_LOGIT_BIASES} token ids.", name)
    biases: dict[int, float] = {}
    for key, bias in value.items():
        # The length is checked first: Python refuses to parse a number of thousands of digits.
        if not (key.isascii() and key.isdigit() and len(key) < 20 and int(key) < vocab_size):
            raise InvalidValue(f"The key {key[:64]!r} is not a token id from 0 to {vocab_size - 1}.", name)
        biases[int(key)] = parse_number(name, bias, -100.0, 100.0)
    return tuple(biases.items())


def _structure(name: str, value: Any) -> StructuredOutputsParams:
    document = _parse_if_string(name, value)
    if not isinstance(document, dict):
        raise InvalidValue("This must be an object, or one as JSON in a string.", name)
    structures = {kind: structure for kind, structure in document.items() if structure is not None}
    kinds = get_args(StructuredOutputsKind)
    if unknown := structures.keys() - set(kinds):
        raise InvalidValue(f"This cannot hold {min(unknown)[:64]!r}, only one of {', '.join(kinds)}.", name)
    if len(structures) != 1:
        raise InvalidValue(f"This must hold exactly one of {', '.join(kinds)}, not {len(structures)}.", name)
    ((kind, structure),) = structures.items()
    text = _structure_text(name, kind, structure)
    most = {"grammar": MAX_GRAMMAR_CHARACTERS, "regex": MAX_REGEX_CHARACTERS}.get(kind, MAX_STRUCTURE_CHARACTERS)
    if len(text) > most:
        raise InvalidValue(f"The {kind} has {len(text)} characters; at most {most} are read.", name)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidValue("This contains an unpaired surrogate, which UTF-8 cannot encode.", name) from None
    return StructuredOutputsParams(kind, text)


def _structure_text(name: str, kind: str, structure: Any) -> str:
    if kind == "json":
        document = _parse_if_string(name, structure)
        if not isinstance(document, dict | bool):
            raise InvalidValue("The json must be a schema: an object, true or false, or one as JSON in a string.", name)
    elif kind == "choice":
        document = structure
        if not isinstance(document, list) or not document or not all(isinstance(c, str) and c for c in document):
            raise InvalidValue("The choice must be a list of strings, none of them empty.", name)
    elif isinstance(structure, str) and structure:
        return structure
    else:
        raise InvalidValue(f"The {kind} must be a string that is not empty.", name)
    try:
        return json.dumps(document, ensure_ascii=False)
    except RecursionError:
        raise InvalidValue("This is nested too deeply.", name) from None


def _parse_if_string(name: str, value: Any) -> Any:
    """Return a list or an object, which may come as JSON in a string: request parameters hold only plain values."""
    return _parse_json(name, value) if isinstance(value, str) else value


def _parse_json(name: str, text: str) -> Any:
    # An upper bound: some of these characters stand in strings.
    if sum(map(text.count, ",[{")) > MAX_STRUCTURE_VALUES:
        raise InvalidValue(f"This may hold at most {MAX_STRUCTURE_VALUES} values.", name)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"This is not JSON: {error}.", name) from None
