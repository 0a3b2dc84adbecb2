"""Shared parts of operations that generate text: sampling options, and the events of a growing answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class StructuredOutput:
    """A constraint on the form of an answer: a JSON schema, a regular expression, a list of choices, or a grammar.

    `value` is a JSON schema (an object, or true for any JSON) for `json`, a list of strings for `choice`, and else a
    string. The kinds are vLLM's structured outputs: https://docs.vllm.ai/en/latest/features/structured_outputs.html
    `structural_tag` describes an answer of several parts; its value is the text of a JSON object
    (`gateway.prompting.calls_or_structure`). `param` is the field of the caller's request that contains the constraint.
    """

    kind: Literal["json", "regex", "choice", "grammar", "structural_tag"]
    value: object
    param: str = field(default="structured_outputs", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Sampling options. None leaves an option to the model.

    The dialect that parses the options checks their ranges, and the model checks them again. `logprobs` is the number
    of likeliest tokens that are reported with each chosen token; `prompt_logprobs` is the same for the prompt's tokens.
    """

    max_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: Mapping[str, float] | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    n: int = 1
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    structured_outputs: StructuredOutput | None = None


@dataclass(frozen=True, slots=True)
class Logprob:
    """A token and its log probability. `data` are its bytes: a token may end inside a character.

    `logprob` is None for the first token of a prompt, which has no context.
    """

    token: str
    logprob: float | None
    data: bytes


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A chosen token, and the likeliest tokens at its position in descending order of probability.

    `is_prompt`: the token belongs to the prompt. `is_hidden`: the text of the answer does not contain it.
    """

    chosen: Logprob
    top_logprobs: tuple[Logprob, ...] = ()
    is_prompt: bool = False
    is_hidden: bool = False


@dataclass(frozen=True, slots=True)
class Delta:
    """Text was added to answer `index`.

    `tokens` is the number of tokens in the response of the model. `text` can be empty while a character or a stop
    string is incomplete. `logprobs` has an entry for each token, if the request asks for them.
    """

    index: int
    text: str
    tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


EMPTY_DELTA = Delta(0, "")
"""An empty response. Coalescing sends the deltas that it holds back when one arrives
(`gateway.signatures.coalescing`)."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Answer `index` is complete. The reason is `stop` where the signature of the model reports none."""

    index: int
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of the engine: of the prompt, and of all answers together. The last event of a stream.

    A signature without token counts has no such event.
    """

    prompt_tokens: int
    completion_tokens: int


TextEvent: TypeAlias = Delta | Finish | Usage
