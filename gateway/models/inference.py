"""Sends a call to a model: one request, or one concurrent request per answer."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, TypeAlias

from gateway.errors import GatewayError, Overloaded, RateLimited
from gateway.http.offload import LARGE_BYTES, OffloadContext, offload
from gateway.models.servers import Model
from gateway.operations.complete import merge
from gateway.signatures.call import Call, Codec, ModelRequest
from gateway.triton.client import CallState
from gateway.triton.transport import Headers

_SECONDS_PER_TOKEN = 0.25
"""Seconds added to the timeout per token, for an answer that arrives in one response."""
_SEQUENCE_PATIENCE_SECONDS = 60.0
"""Seconds for which a request of a sequence is repeated while the model is full or away."""
_MAX_SEQUENCE_WAIT_SECONDS = 5.0
_MAX_EXTRA_TIMEOUT_SECONDS = 3600.0
"""Most seconds added for all tokens of an answer, as callers may request any number of tokens."""

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
    model: Model,
    requests: Sequence[ModelRequest],
    *,
    request_id: str,
    timeout: float,
    headers: Headers = (),
    sequence: AsyncGenerator[ModelRequest] | None = None,
) -> AsyncGenerator[Any]:
    """Yield the events of a call's `requests`, or of its `sequence`, as those of one request.

    `timeout` is the longest time without a response, in seconds. Each gRPC call carries `headers`. Closing the iterator
    cancels every request, and so does a failure of one of them.
    """
    send: Send = partial(_infer, model, timeout, headers, CallState(model.name))
    if sequence:
        return _stream_sequence(send, sequence, f"{request_id}/{uuid.uuid4().hex[:8]}")
    if len(requests) == 1:
        # A request that is stopped by its id needs an id that no other request has.
        unique_id = f"{request_id}/{uuid.uuid4().hex[:8]}" if model.stop_request else request_id
        return _stream_one(send, requests[0], unique_id, None)
    send_lock, id_prefix = asyncio.Lock(), f"{request_id}/{uuid.uuid4().hex[:8]}"
    answers = [_stream_one(send, request, f"{id_prefix}/{i}", send_lock) for i, request in enumerate(requests)]
    return merge(answers, 1, one_prompt=True)


async def _stream_sequence(send: Send, sequence: AsyncGenerator[ModelRequest], id_prefix: str) -> AsyncGenerator[Any]:
    """Send one request after another. Closing the iterator cancels the current one.

    A request after the first is repeated for a while if the model is full or away before it responds: the work of the
    earlier ones is not lost.
    """
    number = 0
    async with aclosing(sequence):
        async for request in sequence:
            began = time.monotonic()
            wait, responded = 0.5, False
            while True:
                events = _stream_one(send, request, f"{id_prefix}/{number}", None)
                try:
                    async with aclosing(events):
                        async for event in events:
                            responded = True
                            yield event
                    break
                except (Overloaded, RateLimited):
                    if responded or not number or time.monotonic() - began + wait > _SEQUENCE_PATIENCE_SECONDS:
                        raise
                await asyncio.sleep(wait)
                wait = min(2 * wait, _MAX_SEQUENCE_WAIT_SECONDS)
            number += 1
            del request, events  # the tensors have megabytes, and the next request takes as much


def _stream_one(
    send: Send, request: ModelRequest, request_id: str, send_lock: asyncio.Lock | None
) -> AsyncGenerator[Any]:
    if request.retry:
        return _stream_with_retry(send, request, request_id, send_lock)
    return send(request, request_id, send_lock)


async def _stream_with_retry(
    send: Send, request: ModelRequest, request_id: str, send_lock: asyncio.Lock | None
) -> AsyncGenerator[Any]:
    """Send a request. If the model refuses it before any response, send the request that `retry` returns.

    There is one retry only: a second refusal would repeat.
    """
    retry, second_request = request.retry, None
    events = send(request, request_id, send_lock)
    del request  # its tensors may have a hundred megabytes, and the answer may take minutes
    responded = False
    try:
        async with aclosing(events):
            async for event in events:
                responded = True
                yield event
    except GatewayError as error:
        second_request = None if responded or retry is None else retry(error)
        if second_request is None:
            raise
    if second_request is not None:
        events = send(second_request, request_id, send_lock)
        async with aclosing(events):
            async for event in events:
                yield event


def _infer(
    model: Model,
    timeout: float,
    headers: Headers,
    state: CallState,
    request: ModelRequest,
    request_id: str,
    send_lock: asyncio.Lock | None,
) -> AsyncGenerator[Any]:
    if request.silent_tokens:
        timeout += min(_SECONDS_PER_TOKEN * request.silent_tokens, _MAX_EXTRA_TIMEOUT_SECONDS)
    responses = model.server.client.stream(
        model.config.name,
        request.tensors,
        request_id=request_id,
        timeout=timeout,
        stop=model.stop_request,
        send_lock=send_lock,
        headers=headers,
        state=state,
    )
    return request.events(responses)
