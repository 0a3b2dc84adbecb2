"""Continue a text."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import ClassVar

from gateway.operations.operation import Operation
from gateway.operations.text import EMPTY_DELTA, Delta, Finish, FinishReason, Sampling, TextEvent, TokenLogprob, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete(Operation):
    """Continue `prompt`, a text or token ids.

    `pictures` are encoded images (PNG, JPEG, WebP …) for the marks that stand for them in the prompt, in their order.
    `literal_spans` are parts of a text in which special tokens are text as any other: first byte and last byte + 1 of
    each in UTF-8, in their order. A signature that cannot carry them has none.
    `echo` begins each answer with the prompt. `special_tokens` is a wish that they be shown, as the answer is read by
    them: a signature that cannot carry it drops it. `whole` says that nobody reads the answer before its end, so that a
    signature may ask for it in one piece.
    """

    operation: ClassVar = "complete"
    phrase: ClassVar = "continue texts"
    route: ClassVar = "/v1/completions"
    delta_events: ClassVar = (Delta,)
    usage_events: ClassVar = (Usage,)

    prompt: str | tuple[int, ...]
    literal_spans: tuple[tuple[int, int], ...] = ()
    images: tuple[bytes, ...] = ()
    echo: bool = False
    show_special_tokens: bool = False
    non_streaming: bool = False
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(slots=True)
class Completion:
    """One answer as it is gathered; complete when it has a reason, or when the stream has ended."""

    text: str = ""
    finish_reason: FinishReason | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)


async def gather(events: AsyncIterator[TextEvent]) -> tuple[list[Completion], Usage | None]:
    """Fold a stream into its answers, by index, and what was counted."""
    answers: dict[int, Completion] = {}
    texts: dict[int, list[str]] = {}
    usage = None
    async for event in events:
        match event:
            case Delta(index, text, _, logprobs):
                texts.setdefault(index, []).append(text)
                answers.setdefault(index, Completion()).logprobs.extend(logprobs)
            case Finish(index, reason):
                answers.setdefault(index, Completion()).finish_reason = reason
            case Usage():
                usage = event
    for index, parts in texts.items():
        answers[index].text = "".join(parts)
    return [answers[index] for index in sorted(answers)], usage


async def share_prompt_logprobs(events: AsyncGenerator[TextEvent], n: int) -> AsyncGenerator[TextEvent]:
    """Yield the events of `n` answers to one prompt, with what its tokens were worth in each of them.

    Models tell of it in answer 0 alone, and others may be ahead of it: what their tokens were worth waits, as their
    ends do.
    """
    waiting: list[list[TokenLogprob]] | None = [[] for _ in range(n)]
    ends: list[Finish] = []
    async with aclosing(events):
        async for event in events:
            told = event.logprobs if isinstance(event, Delta) else ()
            if waiting is None or event is EMPTY_DELTA or isinstance(event, Usage):
                yield event
            elif event.index == 0:
                yield event
                if told or isinstance(event, Finish):
                    prompt = tuple(token for token in told if token.is_prompt)
                    for index, held in enumerate(waiting[1:], 1):
                        yield Delta(index, "", 0, (*prompt, *held))
                    for end in ends:
                        yield end
                    waiting = None
            elif isinstance(event, Finish):
                ends.append(event)
                yield EMPTY_DELTA
            else:
                waiting[event.index] += told
                yield replace(event, logprobs=()) if told else event


def split_answers(request: Complete, seed: int | None = None) -> list[Complete]:
    """Return a request for each of the `n` answers: alike, but for seeds that follow one another.

    The first seed is the caller's, or else `seed`; None leaves all of them to the model.
    """
    sampling = request.sampling
    first = seed if sampling.seed is None else sampling.seed
    seeds = [None if first is None else (first + i + 2**63) % 2**64 - 2**63 for i in range(sampling.n)]
    return [replace(request, sampling=replace(sampling, n=1, seed=each)) for each in seeds]


async def merge(
    answers: Sequence[AsyncGenerator[TextEvent]], n: int, *, one_prompt: bool = False
) -> AsyncGenerator[TextEvent]:
    """Yield the events of several requests, each for `n` answers, as those of one; the first failure ends all of them.

    Answer j of request i becomes answer i * n + j. What was counted is summed; where all have `one_prompt`, its tokens
    count once.
    """
    # One event of each may wait: what is not read holds the model's stream back.
    ready: asyncio.Queue[tuple[int, TextEvent | BaseException | None]] = asyncio.Queue(1)

    async def pass_on(i: int, events: AsyncGenerator[TextEvent]) -> None:
        end: BaseException | None = None
        try:
            async for event in events:
                await ready.put((i, event))
        except Exception as error:
            end = error
        finally:
            await events.aclose()
        await ready.put((i, end))

    tasks = [asyncio.ensure_future(pass_on(i, events)) for i, events in enumerate(answers)]
    counted: list[Usage] = []
    try:
        running = len(tasks)
        while running:
            i, event = await ready.get()
            if event is None:
                running -= 1
            elif isinstance(event, BaseException):
                raise event
            elif isinstance(event, Usage):
                counted.append(event)
            else:
                yield replace(event, index=i * n + event.index)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if len(counted) == len(tasks):
        prompts = [usage.prompt_tokens for usage in counted]
        yield Usage(max(prompts) if one_prompt else sum(prompts), sum(usage.completion_tokens for usage in counted))
