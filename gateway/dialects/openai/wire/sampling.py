"""Fields that chats and completions share: sampling parameters, options of streams, and the usage.

OpenAI's are at https://platform.openai.com/docs/api-reference/chat/create. vLLM's additions (`top_k`, `min_p`,
`repetition_penalty` and others) are at https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema

from gateway.dialects.openai.wire.structured_outputs import ChoiceList, JSONSchemaOrText, StructuredOutputs
from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.http.wire_model import UNION_TAG, WireModel
from gateway.operations.text import Sampling, StructuredOutput, Usage

Stop = Annotated[
    Annotated[str, Field(min_length=1, max_length=1024), Tag(UNION_TAG + "one")]
    | Annotated[
        list[Annotated[str, Field(min_length=1, max_length=1024)]],
        Field(max_length=4),
        Tag(UNION_TAG + "several"),
    ],
    Discriminator(lambda value: UNION_TAG + ("several" if isinstance(value, list) else "one")),
]


UnsupportedField = Annotated[Any, WithJsonSchema({"type": "null"})]
"""Type of a known field that is not supported: `reject_unsupported_fields` refuses values that have an effect."""

UnsupportedFlag = Annotated[Any, WithJsonSchema({"enum": [False, None]})]
UnsupportedList = Annotated[Any, WithJsonSchema({"enum": [[], {}, None]})]

# `stream_options` require `stream`.
STREAM_OPTIONS_SCHEMA: dict[str, Any] = {
    "if": {"properties": {"stream_options": {"type": "object"}}, "required": ["stream_options"]},
    "then": {"properties": {"stream": {"const": True}}, "required": ["stream"]},
}

MAX_LOGIT_BIASES = 300
"""Entries of `logit_bias`."""


def _check_bias_count(biases: Any) -> Any:
    """Refuse too many biases before pydantic validates each."""
    if isinstance(biases, dict) and len(biases) > MAX_LOGIT_BIASES:
        raise ValueError(f"at most {MAX_LOGIT_BIASES} biases are allowed, not {len(biases)}")
    return biases


TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]


class StreamOptions(WireModel):
    """Options that only streams have."""

    include_usage: bool | None = None


class SamplingFields(WireModel):
    """Fields that become `Sampling`, and the options of streams."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int | None, Field(ge=1, lt=2**63)] = None
    min_tokens: Annotated[int | None, Field(ge=0, lt=2**63)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(ge=0, le=1)] = None
    top_k: Annotated[int | None, Field(ge=-1, lt=2**31)] = None
    min_p: Annotated[float | None, Field(ge=0, le=1)] = None
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63)] = None
    stop: Stop | None = None
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=128)] | None = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    repetition_penalty: Annotated[float | None, Field(ge=0.01, le=10)] = None
    logit_bias: (
        Annotated[
            dict[TokenId, Annotated[float, Field(ge=-100, le=100)]],
            Field(max_length=MAX_LOGIT_BIASES, json_schema_extra={"additionalProperties": False}),
            BeforeValidator(_check_bias_count),
        ]
        | None
    ) = None
    n: Annotated[int | None, Field(ge=1, le=128)] = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    user: str | None = None
    structured_outputs: StructuredOutputs | None = None
    # vLLM's older names of structured outputs.
    guided_json: JSONSchemaOrText | None = None
    guided_regex: str | None = None
    guided_choice: ChoiceList | None = None
    guided_grammar: str | None = None
    # vLLM's fields that are not supported: a value that would change the answer is refused, not ignored.
    allowed_token_ids: UnsupportedList = None
    bad_words: UnsupportedList = None
    early_stopping: UnsupportedFlag = None
    include_stop_str_in_output: UnsupportedFlag = None
    length_penalty: Annotated[Any, WithJsonSchema({"enum": [1, None]})] = None
    logits_processors: UnsupportedList = None
    prompt_logprobs: UnsupportedField = None
    return_token_ids: UnsupportedFlag = None
    return_tokens_as_token_ids: UnsupportedFlag = None
    spaces_between_special_tokens: Annotated[Any, WithJsonSchema({"enum": [True, None]})] = None
    structural_tag: UnsupportedField = None
    truncate_prompt_tokens: UnsupportedField = None
    use_beam_search: UnsupportedFlag = None
    vllm_xargs: UnsupportedList = None

    def sampling(
        self, max_tokens: int | None, structure: StructuredOutput | None = None, **logprobs: int | None
    ) -> Sampling:
        """Return the sampling parameters.

        `max_tokens` and `logprobs` are arguments because the fields have other names in chats. `structure` is the
        structure that the route's own fields ask for. Raises `InvalidRequest` where fields contradict each other.
        """
        if max_tokens is not None and (self.min_tokens or 0) > max_tokens:
            raise InvalidRequest(f"'min_tokens' must be at most 'max_tokens', {max_tokens}.", param="min_tokens")
        return Sampling(
            max_tokens=max_tokens,
            min_tokens=self.min_tokens,
            # A `top_p` of 0 leaves only the most likely token. Not every engine accepts 0.
            temperature=0.0 if self.top_p == 0 else self.temperature,
            top_p=self.top_p or None,
            top_k=self.top_k,
            min_p=self.min_p,
            seed=self.seed,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            logit_bias=self.logit_bias or None,
            n=self.n or 1,
            ignore_eos=bool(self.ignore_eos),
            skip_special_tokens=self.skip_special_tokens is not False,
            structured_outputs=self._structure(structure),
            **logprobs,
        )

    def _structure(self, structure: StructuredOutput | None) -> StructuredOutput | None:
        """Return the only structure that the fields ask for. Raises `InvalidRequest` for more than one."""
        candidates: list[tuple[str, StructuredOutput | None]] = []
        if self.structured_outputs:
            newer = self.structured_outputs.to_structure()
            if newer is None:
                names = "json, regex, choice, grammar or json_object"
                raise InvalidRequest(f"'structured_outputs' must have one of {names}.", param="structured_outputs")
            candidates.append(("structured_outputs", newer))
        guided = (self.guided_json, self.guided_regex, self.guided_choice, self.guided_grammar)
        if any(value is not None for value in guided):
            json_, regex, choice, grammar = guided
            older = StructuredOutputs.model_construct(json_=json_, regex=regex, choice=choice, grammar=grammar)
            candidates.append((f"guided_{older.given_names()[0]}", older.to_structure("guided_")))
        found = [(name, value) for name, value in candidates if value]
        if len(found) + (structure is not None) > 1:
            raise InvalidRequest("Only one structured output is allowed.", param=found[-1][0])
        return replace(found[0][1], param=found[0][0]) if found else structure

    @property
    def wants_stream(self) -> bool:
        """True for a streamed answer. Raises `InvalidRequest` for stream options without a stream."""
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("'stream_options' is only allowed when 'stream' is true.", param="stream_options")
        return bool(self.stream)

    @property
    def include_usage(self) -> bool:
        """True for a stream whose last chunk has the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


def never_neutral(_: Any) -> bool:
    """Return False: every value of such a field has an effect."""
    return False


def is_false(value: Any) -> bool:
    """Return whether the value is false, the only one without an effect."""
    return value is False


def is_empty(value: Any) -> bool:
    """Return whether the value is empty, the only one without an effect."""
    return value in ([], {})


UNSUPPORTED_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "allowed_token_ids": is_empty,
    "bad_words": is_empty,
    "early_stopping": is_false,
    "include_stop_str_in_output": is_false,
    "length_penalty": lambda value: value == 1 and value is not True,
    "logits_processors": is_empty,
    "prompt_logprobs": never_neutral,
    "return_token_ids": is_false,
    "return_tokens_as_token_ids": is_false,
    "spaces_between_special_tokens": lambda value: value is True,
    "structural_tag": never_neutral,
    "truncate_prompt_tokens": never_neutral,
    "use_beam_search": is_false,
    "vllm_xargs": is_empty,
}


def reject_unsupported_fields(body: WireModel, unsupported: Mapping[str, Callable[[Any], bool]]) -> None:
    """Raise `UnsupportedOption` for the first unsupported field whose value has an effect.

    `unsupported` are the fields of the route, in addition to `UNSUPPORTED_FIELDS`. A field's predicate is true for
    values without an effect.
    """
    for name, is_neutral in {**UNSUPPORTED_FIELDS, **unsupported}.items():
        value = getattr(body, name)
        if value is not None and not is_neutral(value):
            raise UnsupportedOption(f"The parameter '{name}' is not supported with this value yet.", param=name)


def render_usage(usage: Usage) -> dict[str, int]:
    """Return OpenAI's `usage` object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
