"""The prefix cache and preemption change the duration of a completion, not its text."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.triton.conftest import Loader
from tests.triton.engine_metrics import EngineMetrics
from tests.triton.model_copies import install_copy
from tests.triton.prompts import QUESTIONS
from tests.triton.text_client import NAME, Body, TextClient, chat, prompt, streamed
from tests.wire.gateway_server import RunningGateway

pytestmark = [pytest.mark.triton, pytest.mark.own_engine, pytest.mark.asyncio(loop_scope="session")]

SMALL_CACHE = "small-cache"
MEGABYTES = 48
"""Megabytes of KV cache for about a thousand tokens."""
SECOND_TO_FIRST = 0.1
TRIES = 3
"""Attempts, the best of which counts: other work may use the machine."""

_chance = random.Random(time.time_ns())
"""Makes prompts unique, because the prompts of an earlier run may be cached."""


def words(count: int) -> str:
    return " ".join(_chance.choice(("river", "boat", "bear", "stone", "cloud", "letter")) for _ in range(count))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def small_cache_model(
    default_folder: Path, repository: Path, gateway: RunningGateway, load: Loader
) -> AsyncIterator[str]:
    """The name of a copy of the model with little KV cache."""
    install_copy(default_folder, repository, SMALL_CACHE, kv_memory=MEGABYTES)
    await load(SMALL_CACHE)
    await gateway.until(f"/v1/models/{SMALL_CACHE}", lambda response: response.status_code == 200)
    yield SMALL_CACHE
    await load.unload(SMALL_CACHE)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9, "seed": 7, "n": 2}], ids=["greedy", "seeded"])
async def test_a_repeated_prompt_is_not_read_again(complete: TextClient, engine: EngineMetrics, sampling: Body) -> None:
    body = chat("Tell me about these: " + words(400), max_tokens=40) | sampling
    await engine.wait_idle(NAME)
    cold, before = await complete(body), await engine.stats(NAME)
    warm = await complete(streamed(body))
    await engine.wait_idle(NAME)
    after = await engine.stats(NAME)
    assert warm == cold
    assert after["tokens_in_total"] == before["tokens_in_total"]
    reused = after["prefix_tokens_reused_total"] - before["prefix_tokens_reused_total"]
    assert reused >= cold.usage["prompt_tokens"] > 400


async def test_only_the_new_part_of_a_chat_is_read(complete: TextClient, engine: EngineMetrics) -> None:
    body = chat("Remember these words: " + words(500), max_tokens=20)
    for _ in range(3):
        completion = await complete(body)
        await engine.wait_idle(NAME)
        before = await engine.stats(NAME)
        messages = [{"role": "assistant", "content": completion.text}, {"role": "user", "content": "And then?"}]
        body = {**body, "messages": [*body["messages"], *messages]}
        grown = await complete(body)
        await engine.wait_idle(NAME)
        after = await engine.stats(NAME)
        text_of = grown.usage["prompt_tokens"] - completion.usage["prompt_tokens"]
        assert after["tokens_in_total"] - before["tokens_in_total"] < text_of + 512  # the last chunk, and what came
        assert after["prefix_tokens_reused_total"] > before["prefix_tokens_reused_total"]
        assert await complete(streamed(body)) == grown


async def test_a_repeated_long_prompt_is_ten_times_as_fast(complete: TextClient) -> None:
    ratios: list[float] = []
    while not ratios or ratios[-1] > SECOND_TO_FIRST:
        assert len(ratios) < TRIES, f"seconds of the second answer to seconds of the first: {ratios}"
        body = prompt(words(1500), max_tokens=1)
        seconds = []
        for _ in range(2):
            begun = time.monotonic()
            completion = await complete(body)
            seconds.append(time.monotonic() - begun)
        assert completion.usage["prompt_tokens"] >= 1500
        ratios.append(seconds[1] / seconds[0])


async def test_forty_mixed_prompts_have_the_completions_of_an_idle_model(
    complete: TextClient, engine: EngineMetrics
) -> None:
    bodies = [{**QUESTIONS[number % 16], "max_tokens": 4 + number % 12} for number in range(40)]
    for number, body in enumerate(bodies):
        if number % 3 == 0:
            body |= {"temperature": 0.8, "seed": number}
        if number % 5 == 0:
            body |= {"n": 2}
    alone = [await complete(body) for body in bodies]
    together = await asyncio.gather(*(complete(streamed(body)) for body in bodies))
    assert [number for number in range(40) if together[number] != alone[number]] == []
    await engine.wait_idle(NAME)
    assert (await engine.stats(NAME))["row_bytes"] == 0


async def test_preemption_does_not_change_completions(
    complete: TextClient, engine: EngineMetrics, small_cache_model: str
) -> None:
    bodies = [{**body, "model": small_cache_model, "max_tokens": 120, "ignore_eos": True} for body in QUESTIONS[:9]]
    bodies[3] |= {"temperature": 0.8, "seed": 3}
    alone = [await complete(body) for body in bodies]
    assert (await engine.stats(small_cache_model))["preemptions_total"] == 0
    together = await asyncio.gather(*(complete(streamed(body)) for body in bodies))
    assert together == alone
    await engine.wait_idle(small_cache_model)
    stats = await engine.stats(small_cache_model)
    assert stats["preemptions_total"] > 0 and stats["row_bytes"] == 0
    assert stats["prefix_cache_bytes"] <= MEGABYTES * 2**20


async def test_a_prompt_that_exceeds_the_cache_is_refused(gateway: RunningGateway, small_cache_model: str) -> None:
    body = prompt(words(1200), max_tokens=1) | {"model": small_cache_model}
    response = await gateway.http.post("/v1/completions", json=body)
    assert response.status_code == 400 and response.json()["error"]["code"] == "context_length_exceeded"
