"""The operation `complete`: continuations of a text."""

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

    `images` are encoded files (PNG, JPEG, WebP …), one for each image placeholder of the prompt, in the order of the
    placeholders. `literal_spans` are parts of the text in which special tokens count as plain text: pairs of the first
    byte and the last byte + 1 in UTF-8, in ascending order; empty for a signature that cannot carry them.
    `echo` begins each answer with the prompt. `show_special_tokens` asks for special tokens in the text, because the
    parser of the answer needs them; a signature that cannot carry the option ignores it. `non_streaming` says that the
    caller reads the answer only at its end, so that a signature may request it in one response.
    """

    operation: ClassVar = "complete"
    phrase: ClassVar = "continue texts"
    genai_operation: ClassVar = "text_completion"
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
    """One answer while it is collected. It is complete once it has a finish reason, or once the stream has ended."""

    text: str = ""
    finish_reason: FinishReason | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)


async def gather(events: AsyncIterator[TextEvent]) -> tuple[list[Completion], Usage | None]:
    """Collect a stream. Return the answers ordered by index, and the token counts where the model reports them."""
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
    """Yield the events of `n` answers to one prompt, with the log probabilities of the prompt in each answer.

    Models report them in answer 0 only, and other answers may be ahead of it. Until they arrive, the log probabilities
    and the `Finish` events of the other answers are held back; their texts are not.
    """
    pending: list[list[TokenLogprob]] | None = [[] for _ in range(n)]
    finishes: list[Finish] = []
    async with aclosing(events):
        async for event in events:
            logprobs = event.logprobs if isinstance(event, Delta) else ()
            if pending is None or event is EMPTY_DELTA or isinstance(event, Usage):
                yield event
            elif event.index == 0:
                yield event
                if logprobs or isinstance(event, Finish):
                    prompt = tuple(token for token in logprobs if token.is_prompt)
                    for index, logprobs_of_answer in enumerate(pending[1:], 1):
                        yield Delta(index, "", 0, (*prompt, *logprobs_of_answer))
                    for finish in finishes:
                        yield finish
                    pending = None
            elif isinstance(event, Finish):
                finishes.append(event)
                yield EMPTY_DELTA
            else:
                pending[event.index] += logprobs
                yield replace(event, logprobs=()) if logprobs else event


def split_answers(request: Complete, seed: int | None = None) -> list[Complete]:
    """Return one request for each of the `n` answers. They differ in their seeds, which are consecutive.

    The first seed is the one of `request`, or else `seed`. None leaves all seeds to the model.
    """
    sampling = request.sampling
    first = seed if sampling.seed is None else sampling.seed
    seeds = [None if first is None else (first + i + 2**63) % 2**64 - 2**63 for i in range(sampling.n)]
    return [replace(request, sampling=replace(sampling, n=1, seed=seed)) for seed in seeds]


async def merge(
    answers: Sequence[AsyncGenerator[TextEvent]], n: int, *, one_prompt: bool = False
) -> AsyncGenerator[TextEvent]:
    """Yield the events of several requests, each with `n` answers, as one stream. The first failure ends all of them.

    Answer j of request i becomes answer i * n + j. The token counts are added up at the end, if all requests report
    them; with `one_prompt`, all requests have the same prompt, and its tokens count once.
    """
    # One slot: a slow reader holds the streams of the model back (backpressure).
    queue: asyncio.Queue[tuple[int, TextEvent | BaseException | None]] = asyncio.Queue(1)

    async def forward(i: int, events: AsyncGenerator[TextEvent]) -> None:
        failure: BaseException | None = None
        try:
            async for event in events:
                await queue.put((i, event))
        except Exception as error:
            failure = error
        finally:
            await events.aclose()
        await queue.put((i, failure))

    tasks = [asyncio.ensure_future(forward(i, events)) for i, events in enumerate(answers)]
    usages: list[Usage] = []
    try:
        running = len(tasks)
        while running:
            i, event = await queue.get()
            if event is None:
                running -= 1
            elif isinstance(event, BaseException):
                raise event
            elif isinstance(event, Usage):
                usages.append(event)
            else:
                yield replace(event, index=i * n + event.index)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if len(usages) == len(tasks):
        prompts = [usage.prompt_tokens for usage in usages]
        yield Usage(max(prompts) if one_prompt else sum(prompts), sum(usage.completion_tokens for usage in usages))
