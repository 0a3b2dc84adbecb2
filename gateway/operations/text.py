"""What text-generating operations share: how to choose tokens, and the events of an answer that grows.

An operation is a frozen request in and an asynchronous stream of events out. Nothing here knows HTTP or Triton.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class StructuredOutput:
    """What an answer has to look like: a JSON schema, a regular expression, one of some texts, or a grammar.

    `value` is a JSON schema (an object, or true for any JSON) for `json`, a list of strings for `choice`, and else a
    string. The kinds are vLLM's structured outputs: https://docs.vllm.ai/en/latest/features/structured_outputs.html
    `structural_tag` is an answer in several parts, JSON in a string: `gateway.prompting.calls_or_structure`.
    `param` is the field of the caller's that asks for it.
    """

    kind: Literal["json", "regex", "choice", "grammar", "structural_tag"]
    value: object
    param: str = field(default="structured_outputs", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to choose the next token. `None` leaves the choice to the model.

    Ranges are checked by the dialect that reads them and again by the model that obeys them. `logprobs` is how many of
    the likeliest tokens stand beside each chosen one; `prompt_logprobs` the same for the tokens of the prompt.
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
    """A token and the logarithm of its probability. `data` are its bytes: a token may end inside a character.

    `logprob` is None for the first token of a prompt, before which there is nothing to be likely after.
    """

    token: str
    logprob: float | None
    data: bytes


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token that was chosen, and the likeliest ones at its place, best first.

    `prompt` is whether it is one of the prompt's, and `hidden` whether the text of the answer does not show it.
    """

    chosen: Logprob
    top_logprobs: tuple[Logprob, ...] = ()
    is_prompt: bool = False
    is_hidden: bool = False


@dataclass(frozen=True, slots=True)
class Delta:
    """Text was added to answer `index`.

    `tokens` counts what the model's response brought. Text can be empty while a character or a stop string is
    incomplete. `logprobs` has an entry for each token, where they were asked for.
    """

    index: int
    text: str
    tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


EMPTY_DELTA = Delta(0, "")
"""A response that brought nothing: what was let wait for it goes on without it (`gateway.signatures.coalescing`)."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Answer `index` is complete. Where a model's layout does not say why, it has stopped."""

    index: int
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Usage:
    """What the engine counted: tokens of the prompt, and tokens of all answers. The last event.

    A layout that carries no counts has no such event.
    """

    prompt_tokens: int
    completion_tokens: int


TextEvent: TypeAlias = Delta | Finish | Usage
