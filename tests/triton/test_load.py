"""Bursts: every request is answered, with its own answer, and nothing is left active."""

import asyncio
import random

import pytest

from tests.triton.asking import NAME, Ask, Said, chat, prompt, streamed
from tests.triton.engine import Engine
from tests.triton.prompts import QUESTIONS
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


async def left_behind(gateway: RunningGateway, engine: Engine) -> dict[str, float]:
    """Return what is still active once the engine reports that it is idle."""
    await engine.idle(NAME)
    await asyncio.sleep(0.1)
    gauges = {name: value for name, value in (await gateway.metrics()).items() if "in_flight" in name and value}
    figures = await engine.figures(NAME)
    return gauges | {name: value for name, value in figures.items() if name.startswith("rows") and value}


async def test_two_hundred_at_once(ask: Ask, gateway: RunningGateway, engine: Engine) -> None:
    alone = [await ask(body) for body in SHORT]

    async def one(number: int) -> bool:
        body = SHORT[number % len(SHORT)]
        return await ask(streamed(body) if number // len(SHORT) % 2 else body) == alone[number % len(SHORT)]

    assert all(await asyncio.gather(*(one(number) for number in range(200))))
    assert await left_behind(gateway, engine) == {}


async def test_fifty_leave_and_twenty_stay(
    ask: Ask, gateway: RunningGateway, engine: Engine, alone: list[Said]
) -> None:
    chance = random.Random(50)

    async def leave(number: int) -> None:
        body = {**QUESTIONS[number % 16], "max_tokens": 2000, "ignore_eos": True}
        await asyncio.sleep(chance.uniform(0, 3))
        try:
            async with asyncio.timeout(chance.uniform(0.01, 3)):
                await ask(streamed(body) if number % 2 else body)
        except TimeoutError:
            return
        raise AssertionError("2000 tokens in so short a time?")

    async def stay(number: int) -> bool:
        await asyncio.sleep(chance.uniform(0, 2))
        body = QUESTIONS[number % 16]
        return await ask(streamed(body) if number % 3 else body) == alone[number % 16]

    leaving = asyncio.gather(*(leave(number) for number in range(50)))
    staying = asyncio.gather(*(stay(number) for number in range(20)))
    assert all(await staying)
    await leaving
    assert await left_behind(gateway, engine) == {}
