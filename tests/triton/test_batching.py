"""Answers are independent of the other requests in a batch."""

import asyncio
import random

import pytest

from tests.triton.asking import Ask, Said, streamed
from tests.triton.prompts import QUESTIONS

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]


def same(together: list[Said], alone: list[Said]) -> list[int]:
    """Return for each question whether its answer is the one given while the model is idle."""
    return [number for number, (one, other) in enumerate(zip(together, alone, strict=True)) if one == other]


async def test_sixteen_at_once_say_what_each_says_alone(ask: Ask, alone: list[Said]) -> None:
    together = await asyncio.gather(*(ask(streamed(body)) for body in QUESTIONS))
    assert same(together, alone) == list(range(16))


async def test_they_may_join_and_leave_at_any_time(ask: Ask, alone: list[Said]) -> None:
    """Requests that arrive late, end early or disconnect do not change the other answers."""
    chance = random.Random(16)

    async def passer_by(number: int) -> None:
        await asyncio.sleep(chance.uniform(0, 4))
        body = {**QUESTIONS[number], "max_tokens": chance.randint(1, 30)}
        try:
            async with asyncio.timeout(chance.uniform(0.1, 1.5)):
                await ask(streamed(body))
        except TimeoutError:
            pass

    async def late(number: int) -> Said:
        await asyncio.sleep(chance.uniform(0, 4))
        return await ask(streamed(QUESTIONS[number]))

    passers_by = asyncio.gather(*(passer_by(number) for number in range(16)))
    together = await asyncio.gather(*(late(number) for number in range(16)))
    await passers_by
    assert same(together, alone) == list(range(16))
