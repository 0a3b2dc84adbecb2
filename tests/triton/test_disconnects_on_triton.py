"""A disconnect frees the row at once, at any stage of the request, and does not affect other requests."""

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable

import pytest

from tests.triton.disconnecting_client import DisconnectingClient
from tests.triton.engine_metrics import EngineMetrics
from tests.triton.prompts import QUESTIONS
from tests.triton.text_client import NAME, Body, TextClient, TextResponse, chat, path, prompt, streamed
from tests.wire.gateway_server import RunningGateway

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

LIMIT = 0.2
"""Limit on the seconds from a disconnect until Triton's metrics, which lag by up to 0.1 seconds, show a free row."""
TRIES = 12
"""Attempts, the best of which counts: other work may use the machine."""

LONG = "The river is wide and the boat is small. " * 600
ENDLESS = {"max_tokens": 4000, "ignore_eos": True}

both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


async def cancellations(gateway: RunningGateway, body: Body) -> float:
    sample = f'tritonic_cancellations_total{{model="{body["model"]}",route="{path(body)}"}}'
    return (await gateway.metrics()).get(sample, 0.0)


async def soon(attempt: Callable[[], Awaitable[float]]) -> None:
    """Assert that one of a few calls of `attempt`, which returns seconds, is within the limit."""
    seconds: list[float] = []
    while not seconds or seconds[-1] >= LIMIT:
        seconds.append(await attempt())
        assert len(seconds) < TRIES or min(seconds) < LIMIT, f"seconds until the row was free: {seconds}"


async def until_counted(gateway: RunningGateway, body: Body, count: float) -> None:
    async with asyncio.timeout(20):
        while await cancellations(gateway, body) < count:
            await asyncio.sleep(0.01)


@both
@pytest.mark.parametrize(
    "moment",
    # The statistics of other engines include a prompt only after its prefill.
    ["at once", pytest.param("during prefill", marks=pytest.mark.own_engine), "during decoding"],
)
async def test_a_disconnect_frees_the_row(
    complete: TextClient,
    gateway: RunningGateway,
    engine: EngineMetrics,
    idle_responses: list[TextResponse],
    moment: str,
    stream: bool,
) -> None:
    tries = itertools.count()
    body = prompt("", **ENDLESS)
    body = streamed(body) if stream else body

    async def attempt() -> float:
        # A new prompt each time, because the prefix cache has the earlier ones.
        body["prompt"] = f"{next(tries)} {stream} {LONG}" if moment == "during prefill" else "Once upon a time"
        await engine.wait_idle(NAME)
        before, counted = await engine.stats(NAME), await cancellations(gateway, body)
        companion = asyncio.ensure_future(complete(streamed(QUESTIONS[0])))
        await engine.wait_until(NAME, lambda now: now["rows_active"] == 1)
        client = await DisconnectingClient.send(gateway, body)
        if moment == "at once":
            await asyncio.sleep(0.02)
        elif moment == "during prefill":
            read = before["tokens_in_total"] + 200
            await engine.wait_until(NAME, lambda now: now["tokens_in_total"] > read)
        elif stream:
            await client.wait_for_text()
        else:
            await engine.wait_until(NAME, lambda now: now["rows_active"] == 2 or companion.done())
        late = companion.done()  # then two rows were shown too late, or not at all: try again
        closed = client.disconnect()
        free = await engine.wait_until(NAME, lambda now: now["rows_active"] <= 1 and not now["rows_waiting"])
        await until_counted(gateway, body, counted + 1)
        assert await companion == idle_responses[0]
        await engine.wait_idle(NAME)
        after = await engine.stats(NAME)
        if moment == "during prefill":
            assert after["tokens_in_total"] - before["tokens_in_total"] < 5000
        if moment != "at once":  # else it may have left before the engine heard of it
            assert after["requests_cancelled_total"] == before["requests_cancelled_total"] + 1
        return math.inf if late else free - closed

    await soon(attempt)


@both
async def test_a_disconnect_frees_the_place_in_the_queue(
    complete: TextClient, gateway: RunningGateway, engine: EngineMetrics, short_context_model: str, stream: bool
) -> None:
    """The only row stays busy, and its completion is that of an idle model."""
    question = {**chat("Tell me about the sea.", max_tokens=80, ignore_eos=True), "model": short_context_model}
    expected = await complete(question)
    body = {**prompt("Once upon a time", **ENDLESS), "model": short_context_model}
    body = streamed(body) if stream else body

    async def attempt() -> float:
        await engine.wait_idle(short_context_model)
        counted = await cancellations(gateway, body)
        companion = asyncio.ensure_future(complete(streamed(question)))
        await engine.wait_until(short_context_model, lambda now: now["rows_active"] == 1)
        client = await DisconnectingClient.send(gateway, body)
        await engine.wait_until(short_context_model, lambda now: now["rows_waiting"] == 1 or companion.done())
        closed = client.disconnect()
        free = await engine.wait_until(short_context_model, lambda now: not now["rows_waiting"])
        await until_counted(gateway, body, counted + 1)
        late = companion.done()  # then the row may have been free: try again
        assert await companion == expected
        return math.inf if late else free - closed

    await soon(attempt)


@both
async def test_the_next_request_in_the_queue_gets_the_row(
    gateway: RunningGateway, engine: EngineMetrics, short_context_model: str, stream: bool
) -> None:
    """Measures from the disconnect to the first text of the next request, without metrics."""
    body = {**prompt("Once upon a time", **ENDLESS, stream=stream), "model": short_context_model}
    behind = {**prompt("Then", max_tokens=5, ignore_eos=True, stream=True), "model": short_context_model}

    async def attempt() -> float:
        await engine.wait_idle(short_context_model)
        client = await DisconnectingClient.send(gateway, body)
        await engine.wait_until(short_context_model, lambda now: now["rows_active"] == 1)
        waiting = await DisconnectingClient.send(gateway, behind)
        await engine.wait_until(short_context_model, lambda now: now["rows_waiting"] == 1)
        closed = client.disconnect()
        await waiting.wait_for_text()
        begun = asyncio.get_running_loop().time()
        waiting.disconnect()
        return begun - closed

    await soon(attempt)


async def test_a_full_queue_refuses_requests_and_has_room_again(
    complete: TextClient, gateway: RunningGateway, engine: EngineMetrics, short_context_model: str
) -> None:
    """With one row and a queue of one, four of six simultaneous requests are refused."""
    body = {**prompt("Once upon a time", **ENDLESS), "model": short_context_model}
    await engine.wait_idle(short_context_model)  # the last test's request may still be leaving
    bodies = [body, streamed(body)] * 3
    answers = await asyncio.gather(*(gateway.http.post(path(one), json=one) for one in bodies))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 1 <= len(refused) <= 4
    for answer in refused:
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
    await engine.wait_idle(short_context_model)
    assert (await complete({**body, "max_tokens": 3})).finish_reason == "length"
