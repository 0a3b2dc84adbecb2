"""The interface of a runtime: an engine of another project, as its adapter sees it."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from backends.llm.engine import FinishReason, Generation, Logprob, Logprobs
from backends.serving.errors import EngineFailed

_MIN_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON lacks."""


@dataclass(frozen=True, slots=True)
class AnswerStep:
    """The tokens that an answer has gained since its last step.

    `logprobs`, if requested, has an entry for each token. `finish_reason` comes with the last step. The first step has
    `prompt_logprobs`, if requested, with an entry for each token of the prompt; the number of tokens of the prompt; and
    the number of these that the engine copied from its prefix cache.
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    logprobs: tuple[Logprobs, ...] = ()
    prompt_logprobs: tuple[Logprobs, ...] = ()
    num_prompt_tokens: int | None = None
    num_cached_tokens: int = 0


class Runtime(Protocol):
    """Runs answers in the event loop of `ExternalEngine`. Each answer is a request of its own.

    So each answer ends by itself, and draws as if it had been requested alone; the prefix cache shares the prompt.
    """

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of a prompt and its answer together."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids: each is smaller than this."""

    @property
    def has_died(self) -> bool:
        """True once no request can succeed any more."""

    def generate(self, generation: Generation, index: int) -> AsyncGenerator[AnswerStep, None]:
        """Return the steps of answer `index`. Closing the generator early ends the answer in the runtime.

        May be called from any thread; nothing runs before the first step is requested. Raises `GenerationError` for
        parameters that the runtime refuses. The generator raises `GenerationError` and whatever the runtime raises.
        """

    async def close(self) -> None:
        """Stop the runtime and its processes. Called with no answer open."""


def logprobs_entry(token: int, position: Mapping[int, Any]) -> Logprobs:
    """Return the entry of a position: its own token first, then the likeliest others.

    `position` holds objects with `logprob` and `rank` by token id. Raises `EngineFailed` if it lacks the token.
    """
    if token not in position:
        raise EngineFailed("The engine returned no log probability of a token that it chose.")
    others = sorted((other for other in position.items() if other[0] != token), key=lambda other: -other[1].logprob)
    return tuple(
        Logprob(number, max(value.logprob, _MIN_LOGPROB), value.rank)
        for number, value in [(token, position[token]), *others]
    )
