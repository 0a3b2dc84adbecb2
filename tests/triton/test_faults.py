"""Responses to clients when the server or a model fails."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.triton.breakable_triton import BROKEN, BreakableTriton
from tests.triton.conftest import PATIENCE
from tests.triton.disconnecting_client import DisconnectingClient
from tests.triton.text_client import NAME, TextClient, chat, events, path, prompt, streamed, text_of
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import check_error, check_error_body
from tritonic import triton_health

# It breaks the file of our engine, and counts on models that load within seconds.
pytestmark = [pytest.mark.triton, pytest.mark.own_engine, pytest.mark.asyncio(loop_scope="session")]

IDLE_TIMEOUT = 4.0
"""Idle timeout of the gateway's requests to a model, in seconds."""
ABORTED = "killed by signal 6"
"""The signal with which Triton ends if the model's process died while it held a lock."""
QUESTION = chat("Hello!", max_tokens=12)
ENDLESS = prompt("Once upon a time", max_tokens=4000, ignore_eos=True)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def started_triton(
    default_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[BreakableTriton]:
    breakable = BreakableTriton(default_folder, tmp_path_factory.mktemp("breakable"))
    try:
        await breakable.start()
        yield breakable
    finally:
        await breakable.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(started_triton: BreakableTriton) -> AsyncIterator[RunningGateway]:
    """A gateway in front of the breakable Triton."""
    async with run_gateway(
        started_triton.triton.grpc_url, triton_secret=started_triton.triton.secret, request_timeout=IDLE_TIMEOUT
    ) as running:
        running.http.timeout = httpx.Timeout(PATIENCE)
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def breakable(started_triton: BreakableTriton, gateway: RunningGateway) -> BreakableTriton:
    """The Triton, running again after the last test."""
    if not await asyncio.to_thread(started_triton.triton.is_ready):
        await started_triton.restart()
    await gateway.ready(20)
    return started_triton


async def assert_unavailable(gateway: RunningGateway, body: dict) -> None:
    response = await gateway.http.post(path(body), json=body)
    check_error(response, 503, "overloaded_error", "overloaded")
    assert int(response.headers["retry-after"]) >= 1


async def stream_until_error(gateway: RunningGateway, fault) -> dict:
    """Start a stream, cause `fault`, and return the last event of the stream."""
    text, last = "", None
    async with events(gateway, streamed(ENDLESS)) as stream:
        async for event in stream:
            assert event != "[DONE]"
            if last is None and len(text) > 10:
                fault()
                last = time.monotonic()
            if "error" in event:
                break
            text += "".join(text_of(choice) for choice in event["choices"])
        else:
            raise AssertionError("the stream ended without an error")
        assert last is not None
        async for more in stream:
            raise AssertionError(f"after the error came {more}")
    return event


async def test_a_broken_model_does_not_stop_the_good_one(breakable: BreakableTriton, gateway: RunningGateway) -> None:
    states = {model.name: model for model in breakable.triton.models()}
    assert states[NAME].state == "READY"
    assert states[BROKEN].state == "UNAVAILABLE" and "model.onnx" in states[BROKEN].reason
    assert (await TextClient(gateway)(QUESTION)).text
    assert [model["id"] for model in (await gateway.http.get("/v1/models")).json()["data"]] == [NAME]
    response = await gateway.http.post(path(QUESTION), json={**QUESTION, "model": BROKEN})
    assert "failed to load" in check_error(response, 503, "overloaded_error", "overloaded")


async def test_refusals_and_disconnects_do_not_end_the_server(
    breakable: BreakableTriton, gateway: RunningGateway
) -> None:
    """In Triton 2.51 streams that end with an error status must not coincide with cancelled streams."""
    chance = random.Random(139)
    # The limit of a stop string is known to the model only, so the refusal comes from Triton.
    invalid = prompt("Hi", max_tokens=3, stop="x" * 5000)
    brief = prompt("Hi", max_tokens=3, ignore_eos=True, stream=True)

    async def assert_invalid(body: dict) -> None:
        response = await gateway.http.post(path(body), json=body)
        assert response.status_code == 400, response.text

    async def lane() -> None:
        for _ in range(60):
            if chance.random() < 0.5:
                await assert_invalid(invalid)
            else:
                client = await DisconnectingClient.send(gateway, brief)
                await asyncio.sleep(chance.uniform(0, 0.05))
                client.disconnect()

    await asyncio.gather(*(lane() for _ in range(16)))
    assert breakable.triton.poll() is None
    assert (await TextClient(gateway)(QUESTION)).text


async def test_a_killed_server(breakable: BreakableTriton, gateway: RunningGateway) -> None:
    """All clients get an error at once, and a moment later the model answers again."""
    expected = await TextClient(gateway)(QUESTION)
    whole = asyncio.ensure_future(gateway.http.post(path(ENDLESS), json=ENDLESS))
    async with breakable.supervised() as reported:
        check_error_body(await stream_until_error(gateway, breakable.triton.kill), "overloaded_error", "overloaded")
        check_error(await whole, 503, "overloaded_error", "overloaded")
        for body in (QUESTION, streamed(QUESTION), prompt("Hi")):
            await assert_unavailable(gateway, body)
        await gateway.until("/health/ready", lambda response: response.status_code == 503)
        assert (await gateway.http.get("/health/live")).status_code == 200
        await gateway.ready(30)
        assert await TextClient(gateway)(QUESTION) == expected
    assert "killed by signal 9" in reported[0]


async def test_a_killed_model(breakable: BreakableTriton, gateway: RunningGateway) -> None:
    """Triton neither ends the streams nor restarts the model's process; the supervisor restarts Triton."""
    async with breakable.supervised() as reported:
        error = await stream_until_error(gateway, breakable.kill_model_process)
        check_error_body(error, error["error"]["type"], error["error"]["code"])
        async with asyncio.timeout(30):
            while (response := await gateway.http.post(path(QUESTION), json=QUESTION)).status_code != 200:
                assert response.status_code in (502, 503)
                await asyncio.sleep(0.1)
    assert f"lost the process of its model {NAME}" in reported[0] or ABORTED in reported[0]


async def test_a_killed_model_without_a_supervisor(breakable: BreakableTriton, gateway: RunningGateway) -> None:
    """The gateway waits no longer than its timeout."""
    started = time.monotonic()
    error = await stream_until_error(gateway, breakable.kill_model_process)
    assert error["error"]["code"] in ("model_timeout", "overloaded")
    assert time.monotonic() - started < IDLE_TIMEOUT + 10
    for body in (QUESTION, streamed(QUESTION)):
        response = await gateway.http.post(path(body), json=body)
        assert response.json()["error"]["code"] == ("model_failed" if response.status_code == 502 else "overloaded")


async def wait_until_served(gateway: RunningGateway, seconds: float = 60.0) -> list[float]:
    """Repeat a request until it succeeds; refusals carry a retry hint. Return how long each request took."""
    latencies = []
    async with asyncio.timeout(seconds):
        while True:
            began = time.monotonic()
            response = await gateway.http.post(path(QUESTION), json=QUESTION)
            latencies.append(time.monotonic() - began)
            if response.status_code == 200:
                return latencies
            assert response.status_code in (503, 504), response.text
            assert response.status_code == 504 or int(response.headers["retry-after"]) >= 1
            await asyncio.sleep(0.1)


async def test_a_stopped_server_is_restarted(
    breakable: BreakableTriton, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped server answers nothing: the gateway becomes not ready, and the supervisor restarts the server."""
    monkeypatch.setattr(triton_health, "MAX_SILENT_CHECKS", 8)
    async with breakable.supervised() as reported:
        os.kill(breakable.triton.pid, signal.SIGSTOP)
        await gateway.until("/health/ready", lambda response: response.status_code == 503, 8)
        await assert_unavailable(gateway, QUESTION)
        await gateway.until("/health/ready", lambda response: response.status_code == 200, 60)
        await wait_until_served(gateway)
    assert reported[0] == "Triton has not answered for 8 s; it is ended and started again."


async def test_a_stopped_model_is_restarted(
    breakable: BreakableTriton, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_health, "MAX_STOPPED_CHECKS", 4)
    async with breakable.supervised() as reported:
        os.kill(breakable.model_pid(), signal.SIGSTOP)
        await wait_until_served(gateway)
    assert reported[0] == f"Triton has a model whose process is stopped, {NAME}; it is ended and started again."


async def test_a_model_that_was_stopped_and_continues_is_restarted(
    breakable: BreakableTriton, gateway: RunningGateway
) -> None:
    """Triton aborts at the next request (2.51)."""
    process = breakable.model_pid()
    async with breakable.supervised() as reported:
        os.kill(process, signal.SIGSTOP)
        stuck = [asyncio.ensure_future(gateway.http.post(path(QUESTION), json=QUESTION)) for _ in range(4)]
        for response in await asyncio.gather(*stuck):
            assert response.status_code in (503, 504), response.text
        assert (await gateway.http.get("/health/ready")).status_code == 503
        os.kill(process, signal.SIGCONT)
        await wait_until_served(gateway)
    assert f"lost the process of its model {NAME}" in reported[0] or ABORTED in reported[0]
