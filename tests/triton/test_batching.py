"""Completions do not depend on the other requests in a batch."""

import asyncio
import random

import pytest

from tests.triton.prompts import QUESTIONS
from tests.triton.text_client import TextClient, TextResponse, streamed

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]


def same(together: list[TextResponse], idle_responses: list[TextResponse]) -> list[int]:
    """Return the numbers of the questions whose completion is that of an idle model."""
    return [number for number, (one, other) in enumerate(zip(together, idle_responses, strict=True)) if one == other]


async def test_sixteen_concurrent_requests_have_the_completions_of_an_idle_model(
    complete: TextClient, idle_responses: list[TextResponse]
) -> None:
    together = await asyncio.gather(*(complete(streamed(body)) for body in QUESTIONS))
    assert same(together, idle_responses) == list(range(16))


async def test_requests_that_join_and_leave_do_not_change_others(
    complete: TextClient, idle_responses: list[TextResponse]
) -> None:
    """Requests that arrive late, end early or disconnect do not change other completions."""
    chance = random.Random(16)

    async def passer_by(number: int) -> None:
        await asyncio.sleep(chance.uniform(0, 4))
        body = {**QUESTIONS[number], "max_tokens": chance.randint(1, 30)}
        try:
            async with asyncio.timeout(chance.uniform(0.1, 1.5)):
                await complete(streamed(body))
        except TimeoutError:
            pass

    async def late(number: int) -> TextResponse:
        await asyncio.sleep(chance.uniform(0, 4))
        return await complete(streamed(QUESTIONS[number]))

    passers_by = asyncio.gather(*(passer_by(number) for number in range(16)))
    together = await asyncio.gather(*(late(number) for number in range(16)))
    await passers_by
    assert same(together, idle_responses) == list(range(16))
