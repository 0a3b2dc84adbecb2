"""How a model is asked: in one request, or in one for each answer where its layout carries no more."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gateway.endpoints import Model
from gateway.errors import GatewayError, RequestTooLarge
from gateway.http.apart import LARGE, Asked, apart, beside
from gateway.media import scaling
from gateway.operations.complete import Complete, merge, share_prompt
from gateway.operations.generate_image import GenerateImage
from gateway.operations.text import Sampling
from gateway.operations.waiting import joined
from gateway.prompting.begin import without_bos
from gateway.tensors import Tensor

_MOST_BYTES = 256 * 2**20
"""Of prompts and pictures that several requests send of one: each sends all of them."""
_MOST_DIFFERING = 16 * 2**20
"""Of what differs between them, and is written down for each: a structure of 10 kB in 128 answers takes a tenth."""

_TOKEN_SECONDS = 0.25
"""What each token of an answer that comes in one piece adds to the time for which its model may be silent."""
_LONGEST_SILENCE = 3600.0
"""Seconds that all of them may add: callers may ask for any number of tokens."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request to a model: what it asks for, and its tensors."""

    request: Any
    tensors: Sequence[Tensor]


async def questions(model: Model, request: Any, asked: Asked) -> list[Question]:
    """Return the requests to `model` that `request` is asked as; `asked` is what is known of the caller's.

    Raises `UnsupportedOption` for what the model's layout cannot carry, and `RequestTooLarge` where so many requests
    would send too much.
    """
    parts = model.signature.requests(request, model.config)
    work = partial(_questions, model, parts)
    # What is small may be much where it is written many times, such as a schema.
    if len(parts) > 1 and len(parts) * asked.body_bytes > LARGE:
        return await apart(asked.caller, work)
    return await beside(asked, work)


def _questions(model: Model, parts: Sequence[Any]) -> list[Question]:
    signature, config = model.signature, model.config
    first = Question(parts[0], _encoded(model, parts[0]))
    if len(parts) == 1:
        return [first]
    if len(parts) * sum(len(tensor.data) for tensor in first.tensors) > _MOST_BYTES:
        raise RequestTooLarge(
            f"This model is asked for each answer by itself: prompt and pictures, times 'n', may have {_MOST_BYTES} "
            "bytes.",
            param="n",
        )
    # What is large is the same in all of them, and made once.
    same = {tensor.name: tensor for tensor in signature.encode(_small(parts[0]), config)}
    differing: list[dict[str, Tensor]] = []
    for part in parts:
        own = {} if part == parts[0] else {tensor.name: tensor for tensor in signature.encode(_small(part), config)}
        differing.append({name: tensor for name, tensor in own.items() if tensor != same[name]})
        if len(parts) * sum(len(tensor.data) for tensor in differing[-1].values()) > _MOST_DIFFERING:
            raise RequestTooLarge(
                "This model is asked for each answer by itself: what the answers have to look like, times 'n', may "
                f"have {_MOST_DIFFERING} bytes.",
                param="n",
            )
    return [
        Question(part, [own.get(tensor.name, tensor) for tensor in first.tensors])
        for part, own in zip(parts, differing, strict=True)
    ]


def _small(request: Complete) -> Complete:
    return replace(request, prompt="", literal_spans=(), pictures=())


def _encoded(model: Model, request: Any) -> list[Tensor]:
    sent = without_bos(request, model.config.parameters) if isinstance(request, Complete) else request
    return model.signature.encode(sent, model.config)


def answers(model: Model, asked: Sequence[Question], *, request_id: str, timeout: float) -> AsyncGenerator[Any]:
    """Yield the events of the answers to all that is `asked`, side by side, as those of one request.

    Closing the iterator stops the model, and so does a failure of one of them.
    """
    if len(asked) == 1:
        # What is stopped by its id needs one that no other request has.
        own = f"{request_id}/{uuid.uuid4().hex[:8]}" if model.stop else request_id
        return _answer(model, asked[0], own, timeout, None)
    turn, common = asyncio.Lock(), f"{request_id}/{uuid.uuid4().hex[:8]}"
    several = [_answer(model, each, f"{common}/{i}", timeout, turn) for i, each in enumerate(asked)]
    return merge(several, 1, one_prompt=True)


def _answer(
    model: Model, asked: Question, request_id: str, timeout: float, turn: asyncio.Lock | None
) -> AsyncGenerator[Any]:
    if hasattr(model.signature, "instead"):
        return _amended(model, asked, request_id, timeout, turn)
    return _once(model, asked, request_id, timeout, turn)


async def _amended(
    model: Model, asked: Question, request_id: str, timeout: float, turn: asyncio.Lock | None
) -> AsyncGenerator[Any]:
    """Ask once more where the model refuses before it answers, and its refusal says what it would take.

    Only once: a model that refuses what it told itself will do so again.
    """
    request, again = asked.request, None
    events = _once(model, asked, request_id, timeout, turn)
    del asked  # what is sent may have a hundred megabytes, and the answer may take minutes
    heard = False
    try:
        async with aclosing(events):
            async for event in events:
                heard = True
                yield event
    except GatewayError as error:
        again = None if heard else model.signature.instead(request, error, model.config)  # type: ignore[attr-defined]
        if again is None:
            raise
    if again is not None:
        events = _once(model, Question(again, _encoded(model, again)), request_id, timeout, turn)
        async with aclosing(events):
            async for event in events:
                yield event


def _once(
    model: Model, asked: Question, request_id: str, timeout: float, turn: asyncio.Lock | None
) -> AsyncGenerator[Any]:
    if hasattr(model.signature, "unseen"):
        timeout += min(_TOKEN_SECONDS * model.signature.unseen(asked.request, model.config), _LONGEST_SILENCE)
    responses = model.endpoint.triton.stream(
        model.config.name, asked.tensors, request_id=request_id, timeout=timeout, stop=model.stop, turn=turn
    )
    events = model.signature.decode(asked.request, responses, model.config)
    match asked.request:
        case Complete(sampling=Sampling(n=n, prompt_logprobs=int())) if n > 1:
            events = share_prompt(events, n)
        case GenerateImage(scaled=True):
            events = scaling.fitted(events, asked.request)
    return joined(events, responses)
