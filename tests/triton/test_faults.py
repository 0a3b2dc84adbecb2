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

from tests.triton.asking import NAME, Ask, added, chat, events, path, prompt, streamed
from tests.triton.calling import Caller
from tests.triton.conftest import PATIENCE
from tests.triton.fragile import BROKEN, Fragile
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import check_error, check_error_body
from tritonic import triton_health

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

SILENCE = 4.0
"""Idle timeout of the gateway's requests to a model, in seconds."""
ABORTED = "killed by signal 6"
"""The signal with which Triton ends if the model's process died while it held a lock."""
QUESTION = chat("Hello!", max_tokens=12)
ENDLESS = prompt("Once upon a time", max_tokens=4000, ignore_eos=True)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def made(default_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fragile]:
    fragile = Fragile(default_folder, tmp_path_factory.mktemp("fragile"))
    try:
        await fragile.start()
        yield fragile
    finally:
        await fragile.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def before(made: Fragile) -> AsyncIterator[RunningGateway]:
    """A gateway in front of the fragile Triton."""
    async with run_gateway(made.triton.grpc_url, triton_secret=made.triton.secret, request_timeout=SILENCE) as running:
        running.http.timeout = httpx.Timeout(PATIENCE)
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def fragile(made: Fragile, before: RunningGateway) -> Fragile:
    """The Triton, running again after the last test."""
    if not await asyncio.to_thread(made.triton.is_ready):
        await made.mend()
    await before.ready(20)
    return made


async def refused_as_unavailable(gateway: RunningGateway, body: dict) -> None:
    response = await gateway.http.post(path(body), json=body)
    check_error(response, 503, "overloaded_error", "overloaded")
    assert int(response.headers["retry-after"]) >= 1


async def broken_off(gateway: RunningGateway, fault) -> dict:
    """Start a stream, cause `fault`, and return the last event of the stream."""
    said, last = "", None
    async with events(gateway, streamed(ENDLESS)) as stream:
        async for event in stream:
            assert event != "[DONE]"
            if last is None and len(said) > 10:
                fault()
                last = time.monotonic()
            if "error" in event:
                break
            said += "".join(added(choice) for choice in event["choices"])
        else:
            raise AssertionError("the stream ended without a word")
        assert last is not None
        async for more in stream:
            raise AssertionError(f"after the error came {more}")
    return event


async def test_a_broken_model_does_not_stop_the_good_one(fragile: Fragile, before: RunningGateway) -> None:
    states = {model.name: model for model in fragile.triton.models()}
    assert states[NAME].state == "READY"
    assert states[BROKEN].state == "UNAVAILABLE" and "model.onnx" in states[BROKEN].reason
    assert (await Ask(before)(QUESTION)).text
    assert [model["id"] for model in (await before.http.get("/v1/models")).json()["data"]] == [NAME]
    response = await before.http.post(path(QUESTION), json={**QUESTION, "model": BROKEN})
    assert "failed to load" in check_error(response, 503, "overloaded_error", "overloaded")


async def test_refusals_and_hang_ups_do_not_bring_the_server_down(fragile: Fragile, before: RunningGateway) -> None:
    """In Triton 2.51 streams that end with an error status must not coincide with cancelled streams."""
    chance = random.Random(139)
    # Only the model knows how long it may be.
    wrong = prompt("Hi", max_tokens=3, stop="x" * 5000)
    brief = prompt("Hi", max_tokens=3, ignore_eos=True, stream=True)

    async def refused_one(body: dict) -> None:
        response = await before.http.post(path(body), json=body)
        assert response.status_code == 400, response.text

    async def lane() -> None:
        for _ in range(60):
            if chance.random() < 0.5:
                await refused_one(wrong)
            else:
                caller = await Caller.call(before, brief)
                await asyncio.sleep(chance.uniform(0, 0.05))
                caller.hang_up()

    await asyncio.gather(*(lane() for _ in range(16)))
    assert fragile.triton.poll() is None
    assert (await Ask(before)(QUESTION)).text


async def test_a_killed_server(fragile: Fragile, before: RunningGateway) -> None:
    """All clients get an error at once, and a moment later the model answers again."""
    expected = await Ask(before)(QUESTION)
    whole = asyncio.ensure_future(before.http.post(path(ENDLESS), json=ENDLESS))
    async with fragile.supervised() as reported:
        check_error_body(await broken_off(before, fragile.triton.kill), "overloaded_error", "overloaded")
        check_error(await whole, 503, "overloaded_error", "overloaded")
        for body in (QUESTION, streamed(QUESTION), prompt("Hi")):
            await refused_as_unavailable(before, body)
        await before.until("/health/ready", lambda response: response.status_code == 503)
        assert (await before.http.get("/health/live")).status_code == 200
        await before.ready(30)
        assert await Ask(before)(QUESTION) == expected
    assert "killed by signal 9" in reported[0]


async def test_a_killed_model(fragile: Fragile, before: RunningGateway) -> None:
    """Triton neither ends the streams nor restarts the model's process; the supervisor restarts Triton."""
    async with fragile.supervised() as reported:
        error = await broken_off(before, fragile.kill_process_of_model)
        check_error_body(error, error["error"]["type"], error["error"]["code"])
        async with asyncio.timeout(30):
            while (response := await before.http.post(path(QUESTION), json=QUESTION)).status_code != 200:
                assert response.status_code in (502, 503)
                await asyncio.sleep(0.1)
    assert f"lost the process of its model {NAME}" in reported[0] or ABORTED in reported[0]


async def test_a_killed_model_that_nobody_looks_after(fragile: Fragile, before: RunningGateway) -> None:
    """The gateway waits no longer than its timeout."""
    started = time.monotonic()
    error = await broken_off(before, fragile.kill_process_of_model)
    assert error["error"]["code"] in ("model_timeout", "overloaded")
    assert time.monotonic() - started < SILENCE + 10
    for body in (QUESTION, streamed(QUESTION)):
        response = await before.http.post(path(body), json=body)
        assert response.json()["error"]["code"] == ("model_failed" if response.status_code == 502 else "overloaded")


async def until_served(gateway: RunningGateway, seconds: float = 60.0) -> list[float]:
    """Repeat a request until it succeeds; refusals carry a retry hint. Return how long each request took."""
    waited = []
    async with asyncio.timeout(seconds):
        while True:
            began = time.monotonic()
            response = await gateway.http.post(path(QUESTION), json=QUESTION)
            waited.append(time.monotonic() - began)
            if response.status_code == 200:
                return waited
            assert response.status_code in (503, 504), response.text
            assert response.status_code == 504 or int(response.headers["retry-after"]) >= 1
            await asyncio.sleep(0.1)


async def test_a_server_that_stands_still(
    fragile: Fragile, before: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped server answers nothing: the gateway becomes not ready, and the supervisor restarts the server."""
    monkeypatch.setattr(triton_health, "MAX_SILENT_CHECKS", 8)
    async with fragile.supervised() as reported:
        os.kill(fragile.triton.pid, signal.SIGSTOP)
        await before.until("/health/ready", lambda response: response.status_code == 503, 8)
        await refused_as_unavailable(before, QUESTION)
        await before.until("/health/ready", lambda response: response.status_code == 200, 60)
        await until_served(before)
    assert reported[0] == "Triton has not answered for 8 s; it is ended and started again."


async def test_a_model_that_stands_still(
    fragile: Fragile, before: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_health, "MAX_STOPPED_CHECKS", 4)
    async with fragile.supervised() as reported:
        os.kill(fragile.process_of_model(), signal.SIGSTOP)
        await until_served(before)
    assert reported[0] == f"Triton has a model whose process is stopped, {NAME}; it is ended and started again."


async def test_a_model_that_stood_still_and_goes_on(fragile: Fragile, before: RunningGateway) -> None:
    """Triton aborts at the next request (2.51)."""
    process = fragile.process_of_model()
    async with fragile.supervised() as reported:
        os.kill(process, signal.SIGSTOP)
        stuck = [asyncio.ensure_future(before.http.post(path(QUESTION), json=QUESTION)) for _ in range(4)]
        for response in await asyncio.gather(*stuck):
            assert response.status_code in (503, 504), response.text
        assert (await before.http.get("/health/ready")).status_code == 503
        os.kill(process, signal.SIGCONT)
        await until_served(before)
    assert f"lost the process of its model {NAME}" in reported[0] or ABORTED in reported[0]
