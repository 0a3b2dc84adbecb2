"""Rate limits, in every dialect: headers, refusals, and requests that do not count."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from gateway import rate_rules
from tests.fakes.redis import RedisServer
from tests.fakes.triton import FakeTriton
from tests.wire.conftest import ORIGIN
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import CHAT, CHAT_STREAM, TEXT, TEXT_ROUTES, TextRoute, chat, check_error

pytestmark = pytest.mark.asyncio(loop_scope="session")

FEW, FREE, OWN, POOR = "sk-few", "sk-free", "sk-own", "sk-poor"
LIMITS = (
    f"1000/hour,{rate_rules.caller_of_key(FEW)}=2/hour,{rate_rules.caller_of_key(FREE)}=none,"
    f"{rate_rules.caller_of_key(POOR)}=30 tokens/hour"
)
PATHS = {
    "/v1/chat/completions": CHAT.body("hello"),
    "/v1/completions": TEXT.body("hello"),
    "/v1/embeddings": {"model": "vectors", "input": "a"},
    "/v1/images/generations": {"model": "shapes", "prompt": "a"},
    "/tritonic/v1/chat/completions": CHAT.body("hello"),
    "/tritonic/v1/images/generations": {"model": "shapes", "prompt": "a"},
}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest_asyncio.fixture(loop_scope="session")
async def limited(triton: FakeTriton) -> AsyncIterator[RunningGateway]:
    async with run_gateway(
        triton.url, api_keys=[FEW, FREE, OWN, POOR], rate_limits=LIMITS, cors_origins=[ORIGIN]
    ) as running:
        yield running


async def test_every_response_has_rate_limit_headers(limited: RunningGateway) -> None:
    headers, remaining = bearer(OWN), 1000
    requests: list[dict[str, Any]] = [{"url": path, "json": body} for path, body in PATHS.items()]
    requests += [{"url": CHAT_STREAM.path, "json": CHAT_STREAM.body("hello")}]
    requests += [{"url": CHAT.path, "json": CHAT.body(model)} for model in ("broken", "full", "nothing", "hello")]
    requests += [{"url": CHAT.path, "content": b"no JSON"}]
    for options in requests:
        response = await limited.http.post(**options, headers=headers)
        remaining -= 1
        assert response.headers["x-ratelimit-limit-requests"] == "1000", (options, response.text)
        assert response.headers["x-ratelimit-remaining-requests"] == str(remaining)
        assert re.fullmatch(r"59m[45]\ds|1h0m0s", response.headers["x-ratelimit-reset-requests"])
        assert "x-ratelimit-limit-tokens" not in response.headers
        assert response.headers["x-request-id"]


@pytest.mark.parametrize("path", PATHS)
async def test_requests_beyond_the_rate_limit_are_refused(
    limited: RunningGateway, triton: FakeTriton, path: str
) -> None:
    for _ in range(2):
        assert (await limited.http.post(path, json=PATHS[path], headers=bearer(FEW))).status_code == 200
    before = len(triton.calls)
    response = await limited.http.post(path, json=PATHS[path], headers=bearer(FEW) | {"Origin": ORIGIN})
    sentence = check_error(response, 429, "rate_limit_error", "rate_limit_exceeded")
    assert "2 requests per hour" in sentence
    assert 3590 <= int(response.headers["retry-after"]) <= 3600
    assert response.headers["x-ratelimit-remaining-requests"] == "0"
    exposed = response.headers["access-control-expose-headers"].lower()
    assert "x-ratelimit-reset-tokens" in exposed and "retry-after" in exposed
    assert len(triton.calls) == before
    assert (await limited.http.post(path, json=PATHS[path], headers=bearer(OWN))).status_code == 200


async def test_routes_and_dialects_are_counted_together(limited: RunningGateway) -> None:
    codes = [
        (await limited.http.post(path, json=body, headers=bearer(FEW))).status_code for path, body in PATHS.items()
    ]
    assert codes == [200, 200, 429, 429, 429, 429]


async def test_exempt_callers_are_not_limited(limited: RunningGateway) -> None:
    for _ in range(3):
        response = await limited.http.post(CHAT.path, json=CHAT.body("hello"), headers=bearer(FREE))
        assert response.status_code == 200 and not any("ratelimit" in name for name in response.headers)


async def test_get_requests_are_not_limited(limited: RunningGateway) -> None:
    for path in ("/v1/models", "/v1/models/hello", "/tritonic/v1/images", "/health/live", "/nowhere"):
        response = await limited.http.get(path, headers=bearer(FEW))
        assert not any("ratelimit" in name for name in response.headers)
    response = await limited.http.post(CHAT.path, json=CHAT.body("hello"), headers=bearer(FEW))
    assert response.headers["x-ratelimit-remaining-requests"] == "1"


async def test_a_wrong_key_gets_no_rate_limit_headers(limited: RunningGateway) -> None:
    response = await limited.http.post(CHAT.path, json=CHAT.body("hello"), headers=bearer("sk-wrong"))
    check_error(response, 401, "authentication_error", "invalid_api_key")
    assert not any("ratelimit" in name for name in response.headers)


@pytest.mark.parametrize("route", TEXT_ROUTES, ids=str)
async def test_tokens(limited: RunningGateway, route: TextRoute) -> None:
    """The model reads 9 tokens and generates 9 for each answer."""
    for remaining in (30, 12):
        response = await limited.http.post(route.path, json=route.body("hello"), headers=bearer(POOR))
        assert (response.status_code, response.headers["x-ratelimit-remaining-tokens"]) == (200, str(remaining))
        await asyncio.sleep(0.02)
    response = await limited.http.post(route.path, json=route.body("hello"), headers=bearer(POOR))
    assert "30 tokens per hour" in check_error(response, 429, "rate_limit_error", "rate_limit_exceeded")
    assert response.headers["x-ratelimit-limit-tokens"] == "30"
    assert "x-ratelimit-limit-requests" not in response.headers


async def test_tokens_of_a_disconnected_stream_are_counted(limited: RunningGateway, triton: FakeTriton) -> None:
    before = len(triton.calls)
    async with limited.http.stream(
        "POST", CHAT_STREAM.path, json=CHAT_STREAM.body("endless"), headers=bearer(POOR)
    ) as response:
        ticks = 0
        async for line in response.aiter_lines():
            ticks += "tick" in line
            if ticks == 20:
                break
    await triton.cancelled_call("endless", before)
    await asyncio.sleep(0.05)
    response = await limited.http.post(CHAT.path, json=CHAT.body("hello"), headers=bearer(POOR))
    assert int(response.headers["x-ratelimit-remaining-tokens"]) <= 10


async def test_the_official_client_waits_for_the_rate_limit(triton: FakeTriton) -> None:
    async with run_gateway(triton.url, rate_limits="2/second") as running, running.client(max_retries=2) as client:
        began = time.monotonic()
        for _ in range(4):
            await client.chat.completions.create(**CHAT.body("hello"))
        assert time.monotonic() - began >= 0.9
        with pytest.raises(openai.RateLimitError) as error:
            for _ in range(5):
                await client.with_options(max_retries=0).chat.completions.create(**CHAT.body("hello"))
        assert (error.value.code, error.value.type) == ("rate_limit_exceeded", "rate_limit_error")


async def test_without_keys_callers_are_limited_by_address(triton: FakeTriton) -> None:
    """Unknown keys and headers do not turn a caller into another one."""
    async with run_gateway(triton.url, rate_limits="2/hour,192.0.2.1=1/hour") as running:
        codes = []
        for number in range(4):
            headers = bearer(f"sk-{number}")
            codes.append((await running.http.post(CHAT.path, json=CHAT.body("hello"), headers=headers)).status_code)
        assert codes == [200, 200, 429, 429]
        # The proxy of this machine is believed where it says who asks.
        for forwarded, code in (("192.0.2.1", 200), ("192.0.2.1", 429), ("192.0.2.2", 200)):
            headers = {"X-Forwarded-For": forwarded}
            response = await running.http.post(CHAT.path, json=CHAT.body("hello"), headers=headers)
            assert response.status_code == code


async def test_refusals_are_counted(limited: RunningGateway) -> None:
    for _ in range(4):
        await limited.http.post(CHAT.path, json=CHAT.body("hello"), headers=bearer(FEW))
    failures = {name: value for name, value in (await limited.metrics()).items() if "failures_total" in name}
    assert failures == {f'tritonic_failures_total{{code="rate_limit_exceeded",model="",route="{CHAT.path}"}}': 2}


async def test_gateways_share_a_redis_and_serve_without_it(triton: FakeTriton) -> None:
    redis = RedisServer()
    try:
        shared: dict[str, Any] = {"rate_limits": "3/hour", "rate_limits_store": redis.url}
        async with run_gateway(triton.url, **shared) as first, run_gateway(triton.url, **shared) as second:
            codes = [(await chat(running)).status_code for running in (first, second, first, second, first)]
            assert codes == [200, 200, 200, 429, 429]
            redis.stop()
            answers = [await chat(running) for running in (first, second, first)]
            assert [answer.status_code for answer in answers] == [200, 200, 200]
            assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "2", "1"]
            assert (await first.metrics())["tritonic_rates_unshared_total"] == 2
    finally:
        redis.stop()
