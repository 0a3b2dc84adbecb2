"""Sends a call to a model: one request, or one for each answer side by side."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, TypeAlias

from gateway.errors import GatewayError
from gateway.http.offload import LARGE_BYTES, OffloadContext, offload
from gateway.models.servers import Model
from gateway.operations.complete import merge
from gateway.signatures.call import Call, Codec, ModelRequest
from gateway.triton.transport import Headers

_SECONDS_PER_TOKEN = 0.25
"""Seconds that each token of an answer in one piece adds to the time for which its model may be silent."""
_MAX_EXTRA_TIMEOUT_SECONDS = 3600.0
"""Seconds that all tokens together may add: callers may ask for any number of them."""

Send: TypeAlias = Callable[[ModelRequest, str, asyncio.Lock | None], AsyncGenerator[Any]]
"""Sends a request under an id, and yields its events. Requests that share a lock are sent one at a time."""


async def open_call(model: Model, codec: Codec, request: Any, context: OffloadContext) -> Call:
    """Encode a request for a model: on the event loop, or in a thread where it is large.

    A small request can be large where each of its answers takes a request of its own, which repeats a schema for
    example. Raises a `GatewayError`, see `Codec.open`.
    """
    work = partial(codec.open, request, model.card)
    num_requests = codec.num_requests(request, model.card)
    if context.is_large or (num_requests > 1 and num_requests * context.body_bytes > LARGE_BYTES):
        return await offload(context.caller, work)
    return work()


def stream_events(
    model: Model, requests: Sequence[ModelRequest], *, request_id: str, timeout: float, headers: Headers = ()
) -> AsyncGenerator[Any]:
    """Yield the events of a call's requests, as those of one request.

    `timeout` is how long the model may be silent, in seconds. Each gRPC call carries `headers`. Closing the iterator
    cancels every request, and so does a failure of one of them.
    """
    send: Send = partial(_infer, model, timeout, headers)
    if len(requests) == 1:
        # A request that is stopped by its id needs an id that no other request has.
        own = f"{request_id}/{uuid.uuid4().hex[:8]}" if model.stop_request else request_id
        return _stream_one(send, requests[0], own, None)
    turn, common = asyncio.Lock(), f"{request_id}/{uuid.uuid4().hex[:8]}"
    answers = [_stream_one(send, request, f"{common}/{i}", turn) for i, request in enumerate(requests)]
    return merge(answers, 1, one_prompt=True)


def _stream_one(send: Send, request: ModelRequest, request_id: str, turn: asyncio.Lock | None) -> AsyncGenerator[Any]:
    if request.retry:
        return _stream_with_retry(send, request, request_id, turn)
    return send(request, request_id, turn)


async def _stream_with_retry(
    send: Send, request: ModelRequest, request_id: str, turn: asyncio.Lock | None
) -> AsyncGenerator[Any]:
    """Send a request, and once more as its `retry` says where the model refuses it before any response.

    Only once: a model that refuses the length that it named itself will do so again.
    """
    retry, again = request.retry, None
    events = send(request, request_id, turn)
    del request  # its tensors may have a hundred megabytes, and the answer may take minutes
    responded = False
    try:
        async with aclosing(events):
            async for event in events:
                responded = True
                yield event
    except GatewayError as error:
        again = None if responded or retry is None else retry(error)
        if again is None:
            raise
    if again is not None:
        events = send(again, request_id, turn)
        async with aclosing(events):
            async for event in events:
                yield event


def _infer(
    model: Model,
    timeout: float,
    headers: Headers,
    request: ModelRequest,
    request_id: str,
    turn: asyncio.Lock | None,
) -> AsyncGenerator[Any]:
    if request.silent_tokens:
        timeout += min(_SECONDS_PER_TOKEN * request.silent_tokens, _MAX_EXTRA_TIMEOUT_SECONDS)
    responses = model.server.client.stream(
        model.config.name,
        request.tensors,
        request_id=request_id,
        timeout=timeout,
        stop=model.stop_request,
        turn=turn,
        headers=headers,
    )
    return request.events(responses)
