"""The weights of a prompt's words, by what the removal of each changes for a language model, and shorter prompts."""

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from math import exp

from fastapi import Request

from gateway.dialects.midjourney import drafts
from gateway.dialects.midjourney.errors import Code, Refusal, refuse
from gateway.dialects.midjourney.submission import Draft
from gateway.http import delivery
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations.complete import Complete, gather
from gateway.operations.keep_image import KeepImage
from gateway.operations.text import Sampling, TokenLogprob

MAX_WORDS = 60
"""Words of a prompt. The model reads the prompt once for each."""
_CONTEXT = "A picture of "
"""Text that is put before each prompt, so that the first word has a context, too."""
_CONCURRENCY = 16
_SCALE = 2.0
"""Nats that the other words lose or gain, at which a word counts 73 % or 27 % of its surprise."""
_FUNCTION_WORDS = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "on",
        "in",
        "at",
        "to",
        "by",
        "with",
        "from",
        "for",
        "and",
        "or",
        "that",
        "which",
        "it",
        "is",
    ]
)
_FUNCTION_SHARE = 0.1
"""Part of the surprise of such a word that counts."""
_MAX_EXPONENT = 50.0
_SHARES = (0.8, 0.6, 0.45, 0.3, 0.2)
"""Parts of the words that the shorter prompts have."""


async def shorten(request: Request, text: str | None) -> Draft:
    """Return the draft of a task with the weighted words of a prompt and its shorter prompts, which are known already.

    Raises `Refusal`, the errors of the model, and `ClientDisconnected`.
    """
    prompt = drafts.parse(text)
    words = prompt.text.split()
    if not 1 <= len(words) <= MAX_WORDS:
        raise refuse(f"'prompt' must have 1 to {MAX_WORDS} words, not {len(words)}.")
    model = _find_model(request)
    weights = await delivery.whole(request, _weigh(request, model, words))
    shown = ", ".join(f"**{word}** ({weight:.2f})" for word, weight in zip(words, weights, strict=True))
    return Draft(
        operation=KeepImage(model=model.name),
        action="SHORTEN",
        view="shorten",
        prompt=text or "",
        final=prompt.final,
        text=prompt.text,
        more={"texts": shorter(words, weights), "heading": f"Important words: {shown}"},
    )


def shorter(words: Sequence[str], weights: Sequence[float]) -> list[str]:
    """Return up to five shorter texts, the longest first, each of the words with the highest weights in their order."""
    order = sorted(range(len(words)), key=lambda index: -weights[index])
    found = []
    for share in _SHARES:
        kept = sorted(order[: max(1, round(share * len(words)))])
        found.append(" ".join(words[index] for index in kept))
    return list(dict.fromkeys(found))


def weights_of(surprises: Sequence[float], gains: Sequence[float]) -> list[float]:
    """Return weights from 0 to 1 of words.

    `surprises` are the negative log probabilities of the words after those before them. `gains` are what the log
    probability of the text gains when a word is removed: the surprise, less what the other words lose. A word weighs
    more the less it is expected, and the more the others depend on it.
    """
    raw = [
        max(0.0, surprise) / (1 + exp(min(_MAX_EXPONENT, (gain - surprise) / _SCALE)))
        for surprise, gain in zip(surprises, gains, strict=True)
    ]
    most = max(raw, default=0.0)
    return [weight / most if most > 0 else 0.0 for weight in raw]


def is_function_word(word: str) -> bool:
    """Return whether a word is an English article, preposition or conjunction, which shows nothing by itself."""
    return word.lower().strip(".,;:") in _FUNCTION_WORDS


def surprises_of(tokens: Sequence[TokenLogprob], words: Sequence[str]) -> list[float]:
    """Return the negative log probability of each word, from the tokens of `words` joined by spaces after a context.

    It is 0 for all words if the tokens do not make up that text.
    """
    ends = [0]
    for word in words:
        ends.append(ends[-1] + len(word.encode()) + 1)
    shown = [token.chosen for token in tokens if not token.is_hidden]
    size = sum(len(token.data) for token in shown)
    offset = ends[-1] - 1 - size  # negative: the context comes first
    found = [0.0] * len(words)
    if size < ends[-1] - 1:
        return found
    for token in shown:
        last = offset + len(token.data) - 1
        if last >= 0:
            found[min(bisect_right(ends, last), len(words)) - 1] -= token.logprob or 0.0
        offset += len(token.data)
    return found


async def _weigh(request: Request, model: Model, words: Sequence[str]) -> list[float]:
    """Return the weight of each word, by a pass of the model over the text and one over the text without each word."""
    catalog: Catalog = request.app.state.catalog
    slots = asyncio.Semaphore(_CONCURRENCY)

    async def read(kept: Sequence[str]) -> list[TokenLogprob]:
        operation = Complete(
            model=model.name,
            prompt=_CONTEXT + " ".join(kept),
            echo=True,
            non_streaming=True,
            sampling=Sampling(max_tokens=1, temperature=0, logprobs=0, prompt_logprobs=0),
        )
        async with slots:
            answers, _ = await gather(catalog.run(model, operation, request.state.trace))
        return [token for answer in answers for token in answer.logprobs if token.is_prompt]

    texts = [words, *([*words[:index], *words[index + 1 :]] for index in range(len(words)))]
    tasks = [asyncio.create_task(read(text)) for text in texts]
    try:
        whole, *without = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    total = _total(whole)
    gains = [_total(tokens) - total for tokens in without]
    surprises = surprises_of(whole, words)
    return weights_of(
        [
            _FUNCTION_SHARE * each if is_function_word(word) else each
            for word, each in zip(words, surprises, strict=True)
        ],
        gains,
    )


def _total(tokens: Sequence[TokenLogprob]) -> float:
    return sum(token.chosen.logprob or 0.0 for token in tokens)


def _find_model(request: Request) -> Model:
    """Return the first model, by name, that tells the log probabilities of a text. Raises `Refusal`."""
    catalog: Catalog = request.app.state.catalog
    for model in catalog.models():
        if Complete.operation in model.operations and model.supports_logprobs and model.card.adapter is None:
            return model
    raise Refusal(Code.FAILURE, "No model that tells the log probabilities of a text is served.")
