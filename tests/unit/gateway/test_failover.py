"""Requests go to another server while one does not answer, and when one is lost before its first response."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.models import discovery, servers
from tests.fakes.scripted_model import Fail, Pause, Say, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway

GONE = Fail("Stub process 'quick' is not healthy.")


def models(*first: Fail) -> list[ScriptedModel]:
    return [
        ScriptedModel("quick", (*first, Say("good", "stop"))),
        ScriptedModel("late", (Say("begun"), *first, Say("", "stop"))),
        ScriptedModel("lost", (GONE,)),
        ScriptedModel("hang", (Pause(),)),
    ]


@pytest_asyncio.fixture
async def bad() -> AsyncIterator[FakeTriton]:
    """A server whose model processes end with each request."""
    triton = await FakeTriton(models(GONE)).start()
    yield triton
    await triton.stop()


@pytest_asyncio.fixture
async def good() -> AsyncIterator[FakeTriton]:
    triton = await FakeTriton(models()).start()
    yield triton
    await triton.stop()


async def chat(gateway: RunningGateway, model: str, stream: bool = False) -> tuple[int, str]:
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hello"}]}
    response = await gateway.http.post("/v1/chat/completions", json=body)
    return response.status_code, response.text


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_without_a_response_is_sent_to_another_server(
    bad: FakeTriton, good: FakeTriton, stream: bool
) -> None:
    async with run_gateway(bad.url, good.url) as gateway:
        for _ in range(2):
            status, text = await chat(gateway, "quick", stream)
            assert status == 200 and "good" in text
    assert bad.calls and len(good.calls) == 2


async def test_an_answer_that_has_begun_is_not_sent_again(bad: FakeTriton, good: FakeTriton) -> None:
    async with run_gateway(bad.url, good.url) as gateway:
        status, text = await chat(gateway, "late", stream=True)
    assert status == 200 and "begun" in text and '"error"' in text and "[DONE]" not in text
    assert len(bad.calls) == 1 and not good.calls


async def test_a_request_that_ends_every_server_is_sent_to_two_only() -> None:
    tritons = [await FakeTriton(models()).start() for _ in range(3)]
    async with run_gateway(*(triton.url for triton in tritons)) as gateway:
        status, text = await chat(gateway, "lost")
    assert status == 503 and "overloaded" in text
    assert sum(len(triton.calls) for triton in tritons) == 2
    for triton in tritons:
        await triton.stop()


async def test_a_server_that_does_not_answer_discovery_gets_no_requests(
    good: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_SILENT_SECONDS", 0.1)
    silent = await FakeTriton(models()).start()
    async with run_gateway(silent.url, good.url, discovery_interval=0.1) as gateway:
        body = {"model": "hang", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
        busy = [asyncio.create_task(gateway.http.post("/v1/chat/completions", json=body)) for _ in range(4)]
        await good.call("hang")
        await silent.call("hang")
        silent.frozen = True
        await asyncio.sleep(0.6)
        before = len(silent.calls)
        answers = await asyncio.gather(*(chat(gateway, "quick") for _ in range(6)))
        assert {status for status, _ in answers} == {200} and len(silent.calls) == before
        for request in busy:
            request.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
    await silent.stop()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_without_a_response_leaves_a_server_that_falls_silent(
    good: FakeTriton, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(discovery, "_GIVE_UP_SECONDS", 0.3)
    silent = await FakeTriton([ScriptedModel("quick", (Pause(),))]).start()
    async with run_gateway(silent.url, discovery_interval=0.1) as gateway:
        waiting = asyncio.create_task(chat(gateway, "quick", stream))
        await silent.call("quick")
        silent.frozen = True
        await asyncio.sleep(1.0)
        assert not waiting.done(), "no other server holds the model"
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    silent.frozen = False
    async with run_gateway(silent.url, good.url, discovery_interval=0.1) as gateway:
        waiting = asyncio.create_task(chat(gateway, "quick", stream))
        await silent.call("quick", after=1)
        silent.frozen = True
        async with asyncio.timeout(5):
            status, text = await waiting
        assert status == 200 and "good" in text and len(good.calls) == 1
    await silent.stop()
