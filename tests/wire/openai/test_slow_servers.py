"""Servers that are slow to list their models, because they or the gateway are busy."""

import asyncio
from functools import partialmethod

import pytest

from gateway.models import discovery
from gateway.triton.client import TritonClient
from tests.fakes.scripted_model import Pause, Say, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import run_gateway
from tests.wire.openai.text_requests import CHAT_STREAM, chat

pytestmark = pytest.mark.asyncio(loop_scope="session")

TALKING = ScriptedModel("talking", (Say("tick "), Pause(0.01)) * 3000)
INDEX_TIMEOUT_SECONDS = 0.5
"""Seconds that the gateway waits for a list of models, and again when it retries."""


async def test_a_server_that_answers_requests_stays_available(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its list of models may be late. 1,024 streams, more than the gateway could serve, once ended in refusals."""
    monkeypatch.setattr(
        TritonClient, "repository_index", partialmethod(TritonClient.repository_index, timeout=INDEX_TIMEOUT_SECONDS)
    )
    monkeypatch.setattr(discovery, "_RETRY_TIMEOUT_SECONDS", INDEX_TIMEOUT_SECONDS)
    triton = await FakeTriton((TALKING, ScriptedModel("hello"))).start()
    async with run_gateway(triton.url) as gateway:
        async with gateway.http.stream("POST", CHAT_STREAM.path, json=CHAT_STREAM.body("talking")) as stream:
            parts = stream.aiter_bytes()
            await anext(parts)
            triton.frozen = True
            end = asyncio.get_running_loop().time() + 4 * INDEX_TIMEOUT_SECONDS
            while asyncio.get_running_loop().time() < end:
                await anext(parts)
                assert (await chat(gateway)).status_code == 200
        # Nothing is heard of it any more: it is gone.
        await gateway.until("/health/ready", lambda response: response.status_code == 503)
        assert (await chat(gateway)).status_code == 503
        triton.frozen = False
        await gateway.ready()
        assert (await chat(gateway)).status_code == 200
    await triton.stop()


async def test_one_late_list_of_models_does_not_make_a_server_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual machine that was paused for seconds has missed every deadline when it resumes."""
    monkeypatch.setattr(TritonClient, "repository_index", partialmethod(TritonClient.repository_index, timeout=0.2))
    monkeypatch.setattr(discovery, "_RETRY_TIMEOUT_SECONDS", 20)
    triton = await FakeTriton((ScriptedModel("hello"),)).start()
    async with run_gateway(triton.url) as gateway:
        triton.frozen = True
        await asyncio.sleep(0.5)
        assert (await chat(gateway)).status_code == 200
        triton.frozen = False
    await triton.stop()
