"""Bursts: each request gets its own completion, and no row stays active."""

import asyncio
import random

import pytest

from tests.triton.engine_metrics import EngineMetrics
from tests.triton.prompts import QUESTIONS
from tests.triton.text_client import NAME, TextClient, TextResponse, chat, prompt, streamed
from tests.wire.gateway_server import RunningGateway

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

SHORT = tuple(
    {**body, "max_tokens": 6}
    for body in (
        chat("Hi!"),
        prompt("One, two, three,"),
        prompt("The sun rises in the"),
        prompt("Rouge, vert,"),
        prompt("2 + 2 ="),
        prompt("A, B, C,"),
        prompt("Monday, Tuesday,"),
        prompt("print("),
    )
)


async def left_behind(gateway: RunningGateway, engine: EngineMetrics) -> dict[str, float]:
    """Return what is still active once the engine reports that it is idle."""
    await engine.wait_idle(NAME)
    await asyncio.sleep(0.1)
    gauges = {name: value for name, value in (await gateway.metrics()).items() if "in_flight" in name and value}
    stats = await engine.stats(NAME)
    return gauges | {name: value for name, value in stats.items() if name.startswith("rows") and value}


async def test_two_hundred_at_once(complete: TextClient, gateway: RunningGateway, engine: EngineMetrics) -> None:
    responses = [await complete(body) for body in SHORT]

    async def one(number: int) -> bool:
        body = SHORT[number % len(SHORT)]
        return await complete(streamed(body) if number // len(SHORT) % 2 else body) == responses[number % len(SHORT)]

    assert all(await asyncio.gather(*(one(number) for number in range(200))))
    assert await left_behind(gateway, engine) == {}


async def test_fifty_disconnects_do_not_change_twenty_other_completions(
    complete: TextClient, gateway: RunningGateway, engine: EngineMetrics, idle_responses: list[TextResponse]
) -> None:
    chance = random.Random(50)

    async def leave(number: int) -> None:
        body = {**QUESTIONS[number % 16], "max_tokens": 2000, "ignore_eos": True}
        await asyncio.sleep(chance.uniform(0, 3))
        try:
            async with asyncio.timeout(chance.uniform(0.01, 3)):
                await complete(streamed(body) if number % 2 else body)
        except TimeoutError:
            return
        raise AssertionError("2000 tokens in so short a time?")

    async def stay(number: int) -> bool:
        await asyncio.sleep(chance.uniform(0, 2))
        body = QUESTIONS[number % 16]
        return await complete(streamed(body) if number % 3 else body) == idle_responses[number % 16]

    leaving = asyncio.gather(*(leave(number) for number in range(50)))
    staying = asyncio.gather(*(stay(number) for number in range(20)))
    assert all(await staying)
    await leaving
    assert await left_behind(gateway, engine) == {}
