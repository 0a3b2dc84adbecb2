"""How a model is asked: in one request, or in one for each answer where its layout carries no more."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gateway.errors import GatewayError, RequestTooLarge
from gateway.http.offload import LARGE_BYTES, OffloadContext, offload, offload_if_large
from gateway.media import resize
from gateway.models.servers import Model
from gateway.operations.complete import Complete, merge, share_prompt_logprobs
from gateway.operations.generate_image import GenerateImage
from gateway.operations.text import Sampling
from gateway.prompting.bos_token import strip_bos
from gateway.signatures.coalescing import coalesce
from gateway.triton.tensors import Tensor

_MAX_TOTAL_BYTES = 256 * 2**20
"""Of prompts and pictures that several requests send of one: each sends all of them."""
_MAX_DIFFERING_BYTES = 16 * 2**20
"""Of what differs between them, and is written down for each: a structure of 10 kB in 128 answers takes a tenth."""

_SECONDS_PER_TOKEN = 0.25
"""What each token of an answer that comes in one piece adds to the time for which its model may be silent."""
_MAX_EXTRA_TIMEOUT_SECONDS = 3600.0
"""Seconds that all of them may add: callers may ask for any number of tokens."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One request to a model: what it asks for, and its tensors."""

    request: Any
    tensors: Sequence[Tensor]


async def build_requests(model: Model, request: Any, asked: OffloadContext) -> list[ModelRequest]:
    """Return the requests to `model` that `request` is asked as; `asked` is what is known of the caller's.

    Raises `UnsupportedOption` for what the model's layout cannot carry, and `RequestTooLarge` where so many requests
    would send too much.
    """
    parts = model.signature.split_request(request, model.config)
    work = partial(_build_requests, model, parts)
    # What is small may be much where it is written many times, such as a schema.
    if len(parts) > 1 and len(parts) * asked.body_bytes > LARGE_BYTES:
        return await offload(asked.caller, work)
    return await offload_if_large(asked, work)


def _build_requests(model: Model, parts: Sequence[Any]) -> list[ModelRequest]:
    signature, config = model.signature, model.config
    first = ModelRequest(parts[0], _encode(model, parts[0]))
    if len(parts) == 1:
        return [first]
    if len(parts) * sum(len(tensor.data) for tensor in first.tensors) > _MAX_TOTAL_BYTES:
        raise RequestTooLarge(
            "This model is asked for each answer by itself: prompt and pictures, times 'n', may have "
            f"{_MAX_TOTAL_BYTES} bytes.",
            param="n",
        )
    # What is large is the same in all of them, and made once.
    same = {tensor.name: tensor for tensor in signature.encode(_without_prompt(parts[0]), config)}
    differing: list[dict[str, Tensor]] = []
    for part in parts:
        own = (
            {}
            if part == parts[0]
            else {tensor.name: tensor for tensor in signature.encode(_without_prompt(part), config)}
        )
        differing.append({name: tensor for name, tensor in own.items() if tensor != same[name]})
        if len(parts) * sum(len(tensor.data) for tensor in differing[-1].values()) > _MAX_DIFFERING_BYTES:
            raise RequestTooLarge(
                "This model is asked for each answer by itself: what the answers have to look like, times 'n', may "
                f"have {_MAX_DIFFERING_BYTES} bytes.",
                param="n",
            )
    return [
        ModelRequest(part, [own.get(tensor.name, tensor) for tensor in first.tensors])
        for part, own in zip(parts, differing, strict=True)
    ]


def _without_prompt(request: Complete) -> Complete:
    return replace(request, prompt="", literal_spans=(), images=())


def _encode(model: Model, request: Any) -> list[Tensor]:
    sent = strip_bos(request, model.config.parameters) if isinstance(request, Complete) else request
    return model.signature.encode(sent, model.config)


def stream_events(
    model: Model, asked: Sequence[ModelRequest], *, request_id: str, timeout: float
) -> AsyncGenerator[Any]:
    """Yield the events of the answers to all that is `asked`, side by side, as those of one request.

    Closing the iterator stops the model, and so does a failure of one of them.
    """
    if len(asked) == 1:
        # What is stopped by its id needs one that no other request has.
        own = f"{request_id}/{uuid.uuid4().hex[:8]}" if model.stop_request else request_id
        return _stream_one(model, asked[0], own, timeout, None)
    turn, common = asyncio.Lock(), f"{request_id}/{uuid.uuid4().hex[:8]}"
    several = [_stream_one(model, each, f"{common}/{i}", timeout, turn) for i, each in enumerate(asked)]
    return merge(several, 1, one_prompt=True)


def _stream_one(
    model: Model, asked: ModelRequest, request_id: str, timeout: float, turn: asyncio.Lock | None
) -> AsyncGenerator[Any]:
    if hasattr(model.signature, "retry_request"):
        return _stream_with_retry(model, asked, request_id, timeout, turn)
    return _infer(model, asked, request_id, timeout, turn)


async def _stream_with_retry(
    model: Model, asked: ModelRequest, request_id: str, timeout: float, turn: asyncio.Lock | None
) -> AsyncGenerator[Any]:
    """Ask once more where the model refuses before it answers, and its refusal says what it would take.

    Only once: a model that refuses what it told itself will do so again.
    """
    request, again = asked.request, None
    events = _infer(model, asked, request_id, timeout, turn)
    del asked  # what is sent may have a hundred megabytes, and the answer may take minutes
    heard = False
    try:
        async with aclosing(events):
            async for event in events:
                heard = True
                yield event
    except GatewayError as error:
        again = None if heard else model.signature.retry_request(request, error, model.config)  # type: ignore[attr-defined]
        if again is None:
            raise
    if again is not None:
        events = _infer(model, ModelRequest(again, _encode(model, again)), request_id, timeout, turn)
        async with aclosing(events):
            async for event in events:
                yield event


def _infer(
    model: Model, asked: ModelRequest, request_id: str, timeout: float, turn: asyncio.Lock | None
) -> AsyncGenerator[Any]:
    if hasattr(model.signature, "silent_tokens"):
        timeout += min(
            _SECONDS_PER_TOKEN * model.signature.silent_tokens(asked.request, model.config), _MAX_EXTRA_TIMEOUT_SECONDS
        )
    responses = model.server.client.stream(
        model.config.name, asked.tensors, request_id=request_id, timeout=timeout, stop=model.stop_request, turn=turn
    )
    events = model.signature.decode(asked.request, responses, model.config)
    match asked.request:
        case Complete(sampling=Sampling(n=n, prompt_logprobs=int())) if n > 1:
            events = share_prompt_logprobs(events, n)
        case GenerateImage(allow_resize=True):
            events = resize.resize_images(events, asked.request)
    return coalesce(events, responses)
