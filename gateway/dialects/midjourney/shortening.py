"""The weights of a prompt's words, by what the removal of each changes for a language model, and shorter prompts."""

import asyncio
from collections.abc import Sequence

from fastapi import Request

from gateway.dialects.midjourney import drafts
from gateway.dialects.midjourney.errors import Code, Refusal, refuse
from gateway.dialects.midjourney.submission import Draft
from gateway.http import delivery
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations.complete import Complete, gather
from gateway.operations.keep_image import KeepImage
from gateway.operations.text import Sampling

MAX_WORDS = 60
"""Words of a prompt. The model reads the prompt once for each."""
_CONTEXT = "A picture of "
"""What stands before each prompt, so that the first word has a context, too."""
_CONCURRENCY = 16
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


def relative(changes: Sequence[float]) -> list[float]:
    """Return weights from 0 to 1. `changes` tell how much likelier a text becomes without each word."""
    most = max(changes, default=0.0)
    return [max(0.0, change) / most if most > 0 else 0.0 for change in changes]


async def _weigh(request: Request, model: Model, words: Sequence[str]) -> list[float]:
    """Return the weight of each word: the log probability that the text gains by its removal, as part of the most."""
    catalog: Catalog = request.app.state.catalog
    slots = asyncio.Semaphore(_CONCURRENCY)

    async def score(kept: Sequence[str]) -> float:
        operation = Complete(
            model=model.name,
            prompt=_CONTEXT + " ".join(kept),
            echo=True,
            non_streaming=True,
            sampling=Sampling(max_tokens=1, temperature=0, logprobs=0, prompt_logprobs=0),
        )
        async with slots:
            answers, _ = await gather(catalog.run(model, operation, request.state.trace))
        tokens = [token.chosen.logprob for answer in answers for token in answer.logprobs if token.is_prompt]
        return sum(logprob for logprob in tokens if logprob is not None)

    texts = [words, *([*words[:index], *words[index + 1 :]] for index in range(len(words)))]
    tasks = [asyncio.create_task(score(text)) for text in texts]
    try:
        whole, *without = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return relative([score - whole for score in without])


def _find_model(request: Request) -> Model:
    """Return the first model, by name, that tells the log probabilities of a text. Raises `Refusal`."""
    catalog: Catalog = request.app.state.catalog
    for model in catalog.models():
        if Complete.operation in model.operations and model.supports_logprobs and model.card.adapter is None:
            return model
    raise Refusal(Code.FAILURE, "No model that tells the log probabilities of a text is served.")
