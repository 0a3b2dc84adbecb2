"""Failures of every kind of stream: before its first event, after it, and by a disconnect."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.fakes.scripted_model import Fail, Pause, Say, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.conformance import check_response
from tests.wire.openai.text_requests import CHAT_STREAM, TEXT_STREAM, TextRoute, check_error, check_error_body, events

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIMIT = 30
"""Seconds after a disconnect within which the model must be cancelled, on a busy machine too."""

TOOLS = {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}
REQUIRED = {**TOOLS, "tool_choice": "required"}
NAMED = {"tool_choice": {"type": "function", "function": {"name": "f"}}}
ENTRY = json.dumps([{"5": {"logprob": -0.5, "rank": 1, "decoded_token": "Hi", "bytes": [72, 105]}}])
ODDS = Say("Hi", logprobs=ENTRY)
# For each kind: how it is asked for, what is asked, what the model says first, and how many requests reach it.
KINDS: dict[str, tuple[TextRoute, dict[str, Any], tuple[Say, ...], int]] = {
    "call": (CHAT_STREAM, TOOLS, (Say('<tool_call>\n{"name": "f", "arguments": {"a'), Say('": "b')), 1),
    "forced": (
        CHAT_STREAM,
        {**TOOLS, "tool_choice": "required"},
        (Say('[{"name":"f","arguments":{"a":'), Say('"b')),
        1,
    ),
    "named": (CHAT_STREAM, {**TOOLS, **NAMED}, (Say('{"a":'), Say('"b')), 1),
    "thought": (CHAT_STREAM, {}, (Say("<think>Hm"), Say(" and")), 1),
    "chat-odds": (CHAT_STREAM, {"logprobs": True, "top_logprobs": 1}, (ODDS, ODDS), 1),
    "text-odds": (TEXT_STREAM, {"logprobs": 1}, (ODDS, ODDS), 1),
    "prompts": (TEXT_STREAM, {"prompt": ["a", "b", "c"]}, (Say("x"), Say("y")), 3),
    "prompts-odds": (TEXT_STREAM, {"prompt": ["a", "b"], "logprobs": 1}, (ODDS, ODDS), 2),
    "structure": (CHAT_STREAM, {"response_format": {"type": "json_object"}}, (Say('{"a"'), Say(":")), 1),
    "echo": (TEXT_STREAM, {"echo": True}, (Say("x"), Say("y")), 1),
}
BROKEN = Fail("[engine_failed] The engine stopped.")
THINKS: dict[str, dict[str, str | None]] = {"thought": {"reasoning_parser": "think"}}


def failing_models() -> list[ScriptedModel]:
    models = []
    for name, (_, _, first_texts, _) in KINDS.items():
        for end, step in (("fails", BROKEN), ("hangs", Pause())):
            models.append(ScriptedModel(f"{name}-{end}-at-once", (step,), parameters=THINKS.get(name, {})))
            models.append(ScriptedModel(f"{name}-{end}-later", (*first_texts, step), parameters=THINKS.get(name, {})))
    return models


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def triton() -> AsyncIterator[FakeTriton]:
    fake = await FakeTriton(failing_models()).start()
    yield fake
    await fake.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(triton: FakeTriton) -> AsyncIterator[RunningGateway]:
    """A gateway in front of the models that fail."""
    async with run_gateway(triton.url) as running:
        yield running


async def wait_until_idle(triton: FakeTriton, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while triton.active:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_failure_before_the_first_event_has_a_status(
    gateway: RunningGateway, triton: FakeTriton, kind: str
) -> None:
    route, fields, _, _ = KINDS[kind]
    response = await gateway.http.post(route.path, json={**route.body(f"{kind}-fails-at-once"), **fields})
    check_error(response, 502, "server_error", "model_failed")
    await wait_until_idle(triton)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_failure_after_the_first_event_is_an_error_event(
    gateway: RunningGateway, triton: FakeTriton, kind: str
) -> None:
    route, fields, _, _ = KINDS[kind]
    response = await gateway.http.post(route.path, json={**route.body(f"{kind}-fails-later"), **fields})
    assert response.status_code == 200
    check_response(route.path, 200, response.headers["content-type"], response.content)
    *chunks, last = events(response)
    assert chunks and "[DONE]" not in chunks
    assert not any(choice["finish_reason"] for chunk in chunks for choice in chunk["choices"])
    check_error_body(last, "server_error", "model_failed")
    await wait_until_idle(triton)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_official_client_raises_late_failures(gateway: RunningGateway, kind: str) -> None:
    route, fields, _, _ = KINDS[kind]
    async with gateway.client() as client:
        resource: Any = client.chat.completions if route is CHAT_STREAM else client.completions
        stream = await resource.create(**{**route.body(f"{kind}-fails-later"), **fields})
        with pytest.raises(openai.APIError) as failure:
            async for _ in stream:
                pass
    assert failure.value.code == "model_failed"


@pytest.mark.parametrize("when", ["at-once", "later"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_disconnect_cancels_all_requests_of_a_stream(
    gateway: RunningGateway, triton: FakeTriton, kind: str, when: str
) -> None:
    route, fields, _, requests = KINDS[kind]
    num_calls = len(triton.calls)
    body = json.dumps({**route.body(f"{kind}-hangs-{when}"), **fields}).encode()
    reader, writer = await asyncio.open_connection(*gateway.url.removeprefix("http://").split(":"))
    writer.write(
        f"POST {route.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
    async with asyncio.timeout(30):
        while len(triton.calls) - num_calls < requests:
            await asyncio.sleep(0.005)
        if when == "later":
            while not (await reader.readline()).startswith(b"data: "):
                pass
    gone = time.monotonic()
    writer.close()
    await wait_until_idle(triton)
    calls = triton.calls[num_calls:]
    assert len(calls) == requests
    for call in calls:
        assert call.cancelled_at is not None and call.cancelled_at - gone < LIMIT
