"""A disconnect frees the row at once, at any stage of the request, and does not affect other requests."""

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable

import pytest

from tests.triton.asking import NAME, Ask, Body, Said, chat, path, prompt, streamed
from tests.triton.calling import Caller
from tests.triton.engine import Engine
from tests.triton.prompts import QUESTIONS
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
    async with asyncio.timeout(2):
        while await cancellations(gateway, body) < count:
            await asyncio.sleep(0.01)


@both
@pytest.mark.parametrize("moment", ["at once", "reading the prompt", "speaking"])
async def test_a_row_is_free_at_once(
    ask: Ask, gateway: RunningGateway, engine: Engine, alone: list[Said], moment: str, stream: bool
) -> None:
    tries = itertools.count()
    body = prompt("", **ENDLESS)
    body = streamed(body) if stream else body

    async def attempt() -> float:
        # Nothing that was read before: it would not be read again.
        body["prompt"] = f"{next(tries)} {stream} {LONG}" if moment == "reading the prompt" else "Once upon a time"
        await engine.idle(NAME)
        before, counted = await engine.figures(NAME), await cancellations(gateway, body)
        companion = asyncio.ensure_future(ask(streamed(QUESTIONS[0])))
        await engine.until(NAME, lambda now: now["rows_active"] == 1)
        caller = await Caller.call(gateway, body)
        if moment == "at once":
            await asyncio.sleep(0.02)
        elif moment == "reading the prompt":
            read = before["tokens_in_total"] + 200
            await engine.until(NAME, lambda now: now["tokens_in_total"] > read)
        elif stream:
            await caller.first_words()
        else:
            await engine.until(NAME, lambda now: now["rows_active"] == 2 or companion.done())
        late = companion.done()  # then two rows were shown too late, or not at all: try again
        gone = caller.hang_up()
        free = await engine.until(NAME, lambda now: now["rows_active"] <= 1 and not now["rows_waiting"])
        await until_counted(gateway, body, counted + 1)
        assert await companion == alone[0]
        await engine.idle(NAME)
        after = await engine.figures(NAME)
        if moment == "reading the prompt":
            assert after["tokens_in_total"] - before["tokens_in_total"] < 5000
        if moment != "at once":  # else it may have left before the engine heard of it
            assert after["requests_cancelled_total"] == before["requests_cancelled_total"] + 1
        return math.inf if late else free - gone

    await soon(attempt)


@both
async def test_a_place_in_the_queue_is_free_at_once(
    ask: Ask, gateway: RunningGateway, engine: Engine, tight: str, stream: bool
) -> None:
    """The only row is busy all the time, and its answer is the one given while the model is idle."""
    question = {**chat("Tell me about the sea.", max_tokens=80, ignore_eos=True), "model": tight}
    alone = await ask(question)
    body = {**prompt("Once upon a time", **ENDLESS), "model": tight}
    body = streamed(body) if stream else body

    async def attempt() -> float:
        await engine.idle(tight)
        counted = await cancellations(gateway, body)
        companion = asyncio.ensure_future(ask(streamed(question)))
        await engine.until(tight, lambda now: now["rows_active"] == 1)
        caller = await Caller.call(gateway, body)
        await engine.until(tight, lambda now: now["rows_waiting"] == 1 or companion.done())
        gone = caller.hang_up()
        free = await engine.until(tight, lambda now: not now["rows_waiting"])
        await until_counted(gateway, body, counted + 1)
        late = companion.done()  # then the row may have been free: try again
        assert await companion == alone
        return math.inf if late else free - gone

    await soon(attempt)


@both
async def test_the_next_in_the_queue_gets_the_row(
    gateway: RunningGateway, engine: Engine, tight: str, stream: bool
) -> None:
    """The time from the disconnect to the first words of the next request, measured without metrics."""
    body = {**prompt("Once upon a time", **ENDLESS, stream=stream), "model": tight}
    behind = {**prompt("Then", max_tokens=5, ignore_eos=True, stream=True), "model": tight}

    async def attempt() -> float:
        await engine.idle(tight)
        caller = await Caller.call(gateway, body)
        await engine.until(tight, lambda now: now["rows_active"] == 1)
        waiting = await Caller.call(gateway, behind)
        await engine.until(tight, lambda now: now["rows_waiting"] == 1)
        gone = caller.hang_up()
        await waiting.first_words()
        begun = asyncio.get_running_loop().time()
        waiting.hang_up()
        return begun - gone

    await soon(attempt)


async def test_a_full_queue_says_so_and_has_room_again(
    ask: Ask, gateway: RunningGateway, engine: Engine, tight: str
) -> None:
    """With one row and a queue of one, four of six simultaneous requests are refused."""
    body = {**prompt("Once upon a time", **ENDLESS), "model": tight}
    await engine.idle(tight)  # the last test's request may still be leaving
    asked = [body, streamed(body)] * 3
    answers = await asyncio.gather(*(gateway.http.post(path(one), json=one) for one in asked))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 1 <= len(refused) <= 4
    for answer in refused:
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
    await engine.idle(tight)
    assert (await ask({**body, "max_tokens": 3})).reason == "length"
