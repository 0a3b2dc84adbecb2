"""A model at its limit of open requests: which requests are refused, and which slots become free again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import CHAT, CHAT_STREAM, TEXT_ROUTES, TEXT_STREAM, TextRoute, check_error

pytestmark = pytest.mark.asyncio(loop_scope="session")

GREEDY, MODEST = "sk-greedy", "sk-modest"
PLATFORM = TextRoute("/tritonic/v1/chat/completions", False)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def post_as(gateway: RunningGateway, key: str, route: TextRoute = CHAT, model: str = "hello") -> httpx.Response:
    return await gateway.http.post(route.path, json=route.body(model), headers=bearer(key))


@contextlib.asynccontextmanager
async def open_requests(
    gateway: RunningGateway, triton: FakeTriton, count: int, route: TextRoute = CHAT_STREAM
) -> AsyncIterator[list]:
    """Keep `count` requests of one caller open at the silent model."""
    active = triton.active
    waiting = [asyncio.ensure_future(post_as(gateway, GREEDY, route, "silent")) for _ in range(count)]
    async with asyncio.timeout(30):
        while triton.active < active + count:
            await asyncio.sleep(0.005)
    yield waiting
    for request in waiting:
        request.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    async with asyncio.timeout(30):
        while triton.active > active:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("route", [*TEXT_ROUTES, PLATFORM], ids=str)
async def test_one_caller_leaves_room_for_another(triton: FakeTriton, route: TextRoute) -> None:
    async with run_gateway(triton.url, api_keys=[GREEDY, MODEST], model_requests=10) as gateway:
        async with open_requests(gateway, triton, 8):
            before = len(triton.calls)
            response = await post_as(gateway, GREEDY, route, "silent")
            sentence = check_error(response, 429, "rate_limit_error", "overloaded")
            assert "8 open requests" in sentence and "other callers" in sentence
            assert int(response.headers["retry-after"]) >= 1
            assert len(triton.calls) == before
            # Others may ask this model, and everybody another one.
            reading = asyncio.ensure_future(post_as(gateway, MODEST, route, "silent"))
            await triton.call("silent", before)
            assert (await post_as(gateway, GREEDY, route, "hello")).status_code == 200
            reading.cancel()
        async with open_requests(gateway, triton, 8):
            pass
        counted = {name: value for name, value in (await gateway.metrics()).items() if "failures_total" in name}
        assert list(counted.values()) == [1] and 'code="overloaded",model="silent"' in next(iter(counted))


async def test_a_full_queue_refuses_requests(triton: FakeTriton) -> None:
    async with (
        run_gateway(triton.url, api_keys=[GREEDY, MODEST], model_requests=2) as gateway,
        open_requests(gateway, triton, 2),
    ):
        sentence = check_error(await post_as(gateway, MODEST, model="silent"), 429, "rate_limit_error", "overloaded")
        assert "2 open requests" in sentence


async def test_each_prompt_of_a_request_is_a_request(triton: FakeTriton) -> None:
    async with run_gateway(triton.url, model_requests=10) as gateway:
        for prompts, status in ((8, 200), (9, 429), (8, 200)):
            body = {"model": "hello", "prompt": ["a"] * prompts}
            assert (await gateway.http.post(TEXT_STREAM.path, json=body)).status_code == status


async def test_waiting_requests_count_with_their_bytes(triton: FakeTriton) -> None:
    """Requests that are each within the limits have a limit together, also while they wait for their model."""
    kb = 1000
    limits: dict[str, Any] = {"max_body_bytes": 100 * kb, "media_request_max_bytes": 100 * kb, "requests_held_bytes": 1}

    def large(gateway: RunningGateway, key: str, model: str = "silent") -> asyncio.Future[httpx.Response]:
        body = {"model": model, "messages": [{"role": "user", "content": "x" * 60 * kb}], "stream": True}
        return asyncio.ensure_future(gateway.http.post(CHAT.path, json=body, headers=bearer(key)))

    async with run_gateway(triton.url, api_keys=[GREEDY, MODEST], **limits) as gateway:
        before, active = len(triton.calls), triton.active
        waiting = [large(gateway, GREEDY) for _ in range(3)]
        async with asyncio.timeout(30):
            while triton.active < active + 3:
                await asyncio.sleep(0.005)
        sentence = check_error(await large(gateway, GREEDY), 503, "overloaded_error", "overloaded")
        assert "open requests of this caller" in sentence
        assert len(triton.calls) == before + 3
        assert (await large(gateway, MODEST, "hello")).status_code == 200
        for request in waiting:
            request.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        async with asyncio.timeout(30):
            while (await large(gateway, GREEDY, "hello")).status_code != 200:
                await asyncio.sleep(0.02)
