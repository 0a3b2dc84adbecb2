"""A disconnect cancels the model: for streams and whole answers, before the first token and after it."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import (
    CHAT,
    PLATFORM_CHAT,
    PLATFORM_CHAT_STREAM,
    STREAM_ROUTES,
    TEXT,
    TEXT_ROUTES,
    TextRoute,
    chat,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIMIT = 30
"""Seconds after a disconnect within which the model must be cancelled, on a busy machine too."""

Started = Callable[[], Awaitable[None]]


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["http2", "grpcio"])
async def gateway(triton: FakeTriton, request: pytest.FixtureRequest) -> AsyncIterator[RunningGateway]:
    async with run_gateway(triton.url, triton_transport=request.param) as running:
        yield running


async def hang_up(gateway: RunningGateway, route: TextRoute, model: str, started: Started) -> float:
    """Send a request on its own connection, close that after `started` returns, and return the time of closing."""
    body = json.dumps(route.body(model)).encode()
    reader, writer = await asyncio.open_connection(*gateway.url.removeprefix("http://").split(":"))
    head = f"POST {route.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await started()
    if model != "silent" and route.stream:
        while b'":"' not in await reader.readline():
            pass
    gone = time.monotonic()
    writer.close()
    return gone


@pytest.mark.parametrize("route", [*TEXT_ROUTES, PLATFORM_CHAT, PLATFORM_CHAT_STREAM], ids=str)
@pytest.mark.parametrize("model", ["silent", "silent-later", "endless"])
async def test_a_disconnect_cancels_the_model(
    gateway: RunningGateway, triton: FakeTriton, route: TextRoute, model: str
) -> None:
    before = len(triton.calls)

    async def started() -> None:
        await triton.call(model, before)
        await asyncio.sleep(0.05)

    gone = await hang_up(gateway, route, model, started)
    call = await triton.cancelled_call(model, before)
    assert call.cancelled_at is not None and call.cancelled_at - gone < LIMIT


@pytest.mark.parametrize("route", TEXT_ROUTES, ids=str)
async def test_a_reset_connection_cancels_the_model(
    gateway: RunningGateway, triton: FakeTriton, route: TextRoute
) -> None:
    before = len(triton.calls)
    body = json.dumps(route.body("silent")).encode()
    _, writer = await asyncio.open_connection(*gateway.url.removeprefix("http://").split(":"))
    writer.write(
        f"POST {route.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
    await triton.call("silent", before)
    # Zero seconds of lingering make the kernel send a reset.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    writer.transport.abort()
    await triton.cancelled_call("silent", before)


@pytest.mark.parametrize("route", STREAM_ROUTES, ids=str)
async def test_the_official_client_may_leave_a_stream(
    gateway: RunningGateway, triton: FakeTriton, route: TextRoute
) -> None:
    before = len(triton.calls)
    async with gateway.client() as client:
        resource: Any = client.chat.completions if "chat" in route.path else client.completions
        async for _ in await resource.create(**route.body("endless")):
            break
    await triton.cancelled_call("endless", before)


@pytest.mark.parametrize("route", [CHAT, TEXT], ids=str)
async def test_a_client_timeout_cancels_the_model(
    gateway: RunningGateway, triton: FakeTriton, route: TextRoute
) -> None:
    before = len(triton.calls)
    with pytest.raises(httpx.ReadTimeout):
        await gateway.http.post(route.path, json=route.body("silent"), timeout=0.1)
    await triton.cancelled_call("silent", before)


async def test_a_disconnect_in_the_middle_of_the_body_reaches_no_model(
    gateway: RunningGateway, triton: FakeTriton
) -> None:
    before = len(triton.calls)
    _, writer = await asyncio.open_connection(*gateway.url.removeprefix("http://").split(":"))
    head = f"POST {CHAT.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n"
    writer.write(head.encode() + b'{"model": "hello"')
    await asyncio.sleep(0.05)
    writer.close()
    await asyncio.sleep(0.05)
    assert len(triton.calls) == before
    assert (await chat(gateway)).status_code == 200


async def test_a_disconnect_does_not_disturb_other_requests(gateway: RunningGateway, triton: FakeTriton) -> None:
    before = len(triton.calls)
    others = [asyncio.ensure_future(chat(gateway, "late")) for _ in range(4)]

    async def started() -> None:
        await triton.call("endless", before)

    await hang_up(gateway, STREAM_ROUTES[0], "endless", started)
    assert [(await other).json()["choices"][0]["message"]["content"] for other in others] == ["abc"] * 4
