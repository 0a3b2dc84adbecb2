"""Memory of requests, counted from the first byte of their bodies to the end of their responses."""

import asyncio
import gzip
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.types import Message

from gateway.errors import InvalidRequest, Overloaded, RequestTimeout
from gateway.fair_sharing import MemoryPool, MemoryReservation
from gateway.http.bodies import JSONRequest
from gateway.http.json_limits import JSONLimits

KB = 1024


def sent(*pieces: bytes, whole: bool = True) -> asyncio.Queue[Message]:
    """The messages of a client that has sent all of its request."""
    queue: asyncio.Queue[Message] = asyncio.Queue()
    for i, piece in enumerate(pieces):
        more = not whole or i < len(pieces) - 1
        queue.put_nowait({"type": "http.request", "body": piece, "more_body": more})
    return queue


async def read(queue: asyncio.Queue[Message], caller: str, room: MemoryPool, seconds: float = 5) -> dict[str, Any]:
    """Read a body, and respond at once."""
    holding = MemoryReservation(room, caller)
    request: JSONRequest[dict[str, Any]] = JSONRequest({"type": "http", "headers": []}, queue.get, Headers())
    try:
        await request.read(KB * KB, seconds, JSONLimits(1000), lambda body: body, holding)
    finally:
        holding.release()
    return dict(request._json)


async def test_unfinished_bodies_of_a_caller_leave_memory_for_others() -> None:
    room = MemoryPool(8 * KB)
    slow = [asyncio.create_task(read(sent(b" " * KB, whole=False), "slow", room)) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as raised:
        await read(sent(b" " * KB, b"{}"), "slow", room)
    assert raised.value.retry_after
    assert await read(sent(b" " * KB, b'{"a":1}'), "another", room) == {"a": 1}
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert room._free == 8 * KB and not room._held


async def test_memory_of_a_body_is_released_however_it_ends() -> None:
    room = MemoryPool(8 * KB)
    with pytest.raises(InvalidRequest):
        await read(sent(b"[" * KB), "a", room)
    with pytest.raises(RequestTimeout):
        await read(sent(b" " * KB, whole=False), "a", room, seconds=0.01)
    with pytest.raises(Overloaded):
        await read(sent(b" " * KB * 3, b" " * KB * 3), "a", room)
    assert await read(sent(b'{"a":"', b"b" * KB, b'"}'), "a", room) == {"a": "b" * KB}
    assert room._free == 8 * KB and not room._held


async def test_a_gzip_body_counts_with_its_unpacked_size() -> None:
    room = MemoryPool(64 * KB)
    packed = gzip.compress(b'{"a":"' + b"b" * 12 * KB + b'"}')
    assert len(packed) < KB
    holding = MemoryReservation(room, "a")
    headers = Headers({"content-encoding": "gzip"})
    request: JSONRequest[dict[str, Any]] = JSONRequest({"type": "http", "headers": []}, sent(packed).get, headers)
    await request.read(KB * KB, 5, JSONLimits(1000), lambda body: body, holding)
    assert request.body_bytes == 12 * KB + 8 and room._free == 64 * KB - request.body_bytes
    holding.release()
    with pytest.raises(Overloaded):
        request = JSONRequest({"type": "http", "headers": []}, sent(packed).get, headers)
        await request.read(KB * KB, 5, JSONLimits(1000), lambda body: body, MemoryReservation(MemoryPool(20 * KB), "a"))
    assert room._free == 64 * KB and not room._held
