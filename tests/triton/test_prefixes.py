"""The prefix cache and a lack of memory change the duration of an answer, not its text."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.triton.asking import NAME, Ask, Body, chat, prompt, streamed
from tests.triton.conftest import Loader
from tests.triton.engine import Engine
from tests.triton.installing import install_copy
from tests.triton.prompts import QUESTIONS
from tests.wire.gateway_server import RunningGateway

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

SCARCE = "scarce"
MEGABYTES = 24
"""Megabytes of KV cache for about five hundred tokens."""
SECOND_TO_FIRST = 0.1
TRIES = 3
"""Attempts, the best of which counts: other work may use the machine."""

_chance = random.Random(time.time_ns())
"""Makes prompts unique, because the prompts of an earlier run may be cached."""


def words(count: int) -> str:
    return " ".join(_chance.choice(("river", "boat", "bear", "stone", "cloud", "letter")) for _ in range(count))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scarce(default_folder: Path, repository: Path, gateway: RunningGateway, load: Loader) -> AsyncIterator[str]:
    """The name of a copy of the model with little KV cache."""
    install_copy(default_folder, repository, SCARCE, kv_memory=MEGABYTES)
    await load(SCARCE)
    await gateway.until(f"/v1/models/{SCARCE}", lambda response: response.status_code == 200)
    yield SCARCE
    await load.unload(SCARCE)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9, "seed": 7, "n": 2}], ids=["greedy", "seeded"])
async def test_the_same_again(ask: Ask, engine: Engine, sampling: Body) -> None:
    body = chat("Tell me about these: " + words(400), max_tokens=40) | sampling
    await engine.idle(NAME)
    cold, before = await ask(body), await engine.figures(NAME)
    warm = await ask(streamed(body))
    await engine.idle(NAME)
    after = await engine.figures(NAME)
    assert warm == cold
    assert after["tokens_in_total"] == before["tokens_in_total"]
    reused = after["prefix_tokens_reused_total"] - before["prefix_tokens_reused_total"]
    assert reused >= cold.usage["prompt_tokens"] > 400


async def test_a_growing_chat_is_read_from_where_it_grew(ask: Ask, engine: Engine) -> None:
    body = chat("Remember these words: " + words(500), max_tokens=20)
    for _ in range(3):
        said = await ask(body)
        await engine.idle(NAME)
        before = await engine.figures(NAME)
        messages = [{"role": "assistant", "content": said.text}, {"role": "user", "content": "And then?"}]
        body = {**body, "messages": [*body["messages"], *messages]}
        grown = await ask(body)
        await engine.idle(NAME)
        after = await engine.figures(NAME)
        added = grown.usage["prompt_tokens"] - said.usage["prompt_tokens"]
        assert after["tokens_in_total"] - before["tokens_in_total"] < added + 512  # the last chunk, and what came
        assert after["prefix_tokens_reused_total"] > before["prefix_tokens_reused_total"]
        assert await ask(streamed(body)) == grown


async def test_a_long_prompt_that_comes_again_is_answered_at_once(ask: Ask) -> None:
    ratios: list[float] = []
    while not ratios or ratios[-1] > SECOND_TO_FIRST:
        assert len(ratios) < TRIES, f"seconds of the second answer to seconds of the first: {ratios}"
        body = prompt(words(1500), max_tokens=1)
        seconds = []
        for _ in range(2):
            begun = time.monotonic()
            said = await ask(body)
            seconds.append(time.monotonic() - begun)
        assert said.usage["prompt_tokens"] >= 1500
        ratios.append(seconds[1] / seconds[0])


async def test_forty_mixed_prompts_say_what_each_says_alone(ask: Ask, engine: Engine) -> None:
    bodies = [{**QUESTIONS[number % 16], "max_tokens": 4 + number % 12} for number in range(40)]
    for number, body in enumerate(bodies):
        if number % 3 == 0:
            body |= {"temperature": 0.8, "seed": number}
        if number % 5 == 0:
            body |= {"n": 2}
    alone = [await ask(body) for body in bodies]
    together = await asyncio.gather(*(ask(streamed(body)) for body in bodies))
    assert [number for number in range(40) if together[number] != alone[number]] == []
    await engine.idle(NAME)
    assert (await engine.figures(NAME))["row_bytes"] == 0


async def test_with_little_memory_everybody_says_what_they_say_alone(ask: Ask, engine: Engine, scarce: str) -> None:
    bodies = [{**body, "model": scarce, "max_tokens": 60, "ignore_eos": True} for body in QUESTIONS[:9]]
    bodies[3] |= {"temperature": 0.8, "seed": 3}
    alone = [await ask(body) for body in bodies]
    assert (await engine.figures(scarce))["preemptions_total"] == 0
    together = await asyncio.gather(*(ask(streamed(body)) for body in bodies))
    assert together == alone
    await engine.idle(scarce)
    figures = await engine.figures(scarce)
    assert figures["preemptions_total"] > 0 and figures["row_bytes"] == 0
    assert figures["prefix_cache_bytes"] <= MEGABYTES * 2**20


async def test_what_can_never_fit_is_refused(gateway: RunningGateway, scarce: str) -> None:
    body = prompt(words(1200), max_tokens=1) | {"model": scarce}
    response = await gateway.http.post("/v1/completions", json=body)
    assert response.status_code == 400 and response.json()["error"]["code"] == "context_length_exceeded"
