"""Models with one answer per request: the gateway sends `n` requests and merges the answers."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.fakes.scripted_model import Fail, IfSeed, Pause, RawOutputs, Say, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import STREAM_ROUTES, TEXT_ROUTES, TextRoute, check_error_body

pytestmark = pytest.mark.asyncio(loop_scope="session")

FOREIGN = ("token_ids", "literal_spans")
"""The inputs that vLLM's own backend does not have."""
ODD = (("text_output", "BYTES", (2,), b"\1\0\0\0a\1\0\0\0b"),)


def foreign(name: str, *script: Any) -> ScriptedModel:
    return ScriptedModel(name, script, missing_inputs=FOREIGN)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def triton() -> AsyncIterator[FakeTriton]:
    fake = await FakeTriton(
        [
            foreign("seeded", *(IfSeed(seed, Say(f"{seed}!")) for seed in (5, 6, 7)), Say("", "stop")),
            foreign("broken-one", Say("a"), Pause(0.05), IfSeed(6, Fail("The engine fell over.")), Pause()),
            foreign("endless", *(Say("tick "), Pause(0.01)) * 1000),
            foreign("odd", RawOutputs(ODD)),
            foreign("odd-later", Say("a"), Pause(0.05), RawOutputs(ODD)),
            ScriptedModel("odd-of-ours", (RawOutputs((("text_output", "BYTES", (1,), b"\xff"),)),)),
        ]
    ).start()
    yield fake
    await fake.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(triton: FakeTriton) -> AsyncIterator[RunningGateway]:
    async with run_gateway(triton.url, model_requests=20) as running:
        yield running


async def test_each_answer_has_its_own_seed_and_place(gateway: RunningGateway, triton: FakeTriton) -> None:
    before = len(triton.calls)
    body: dict[str, Any] = {"model": "seeded", "prompt": "x", "n": 3, "seed": 5}
    async with gateway.client() as client:
        answer = await client.completions.create(**body)
        assert [(choice.index, choice.text) for choice in answer.choices] == [(0, "5!"), (1, "6!"), (2, "7!")]
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (9, 6)
        texts = ["", "", ""]
        async for chunk in await client.completions.create(**body, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.text
        assert texts == ["5!", "6!", "7!"]
    calls = triton.calls[before:]
    assert len({call.id for call in calls}) == len(calls) == 6
    assert all("n" not in call.sampling for call in calls)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_failure_of_one_answer_cancels_all(gateway: RunningGateway, triton: FakeTriton, stream: bool) -> None:
    before = len(triton.calls)
    body: dict[str, Any] = {"model": "broken-one", "prompt": "x", "n": 3, "seed": 5, "stream": stream}
    async with gateway.client() as client:
        with pytest.raises(openai.APIError, match="fell over"):
            answer = await client.completions.create(**body)
            async for _ in answer:
                pass
    async with asyncio.timeout(30):
        await asyncio.gather(*(call.ended.wait() for call in triton.calls[before:]))
    ended = [call.cancelled_at is not None for call in sorted(triton.calls[before:], key=lambda c: c.sampling["seed"])]
    assert ended == [True, False, True]


@pytest.mark.parametrize("route", STREAM_ROUTES, ids=str)
async def test_a_disconnect_cancels_all_answers(gateway: RunningGateway, triton: FakeTriton, route: TextRoute) -> None:
    before = len(triton.calls)
    async with gateway.http.stream("POST", route.path, json=route.body("endless") | {"n": 3}) as response:
        async for _ in response.aiter_lines():
            if len(triton.calls) == before + 3:
                break
    async with asyncio.timeout(30):
        await asyncio.gather(*(call.ended.wait() for call in triton.calls[before:]))
    assert [call.cancelled_at is not None for call in triton.calls[before:]] == [True] * 3


async def test_each_answer_counts_as_a_request_to_the_model(gateway: RunningGateway, triton: FakeTriton) -> None:
    """One caller may use 16 of 20 slots."""
    before = len(triton.calls)
    response = await gateway.http.post("/v1/completions", json={"model": "endless", "prompt": "x", "n": 17})
    assert "at most 16 requests open" in check_error_body(response.json(), "invalid_request_error", param="n")
    assert response.status_code == 400, "trying again would never help"
    assert len(triton.calls) == before
    response = await gateway.http.post("/v1/completions", json={"model": "seeded", "prompt": "x", "n": 16})
    assert response.status_code == 200


async def test_too_large_requests_are_refused_before_anything_is_sent(
    gateway: RunningGateway, triton: FakeTriton
) -> None:
    before = len(triton.calls)
    body = {"model": "seeded", "prompt": "x" * 7_000_000, "n": 50}
    response = await gateway.http.post("/v1/completions", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (413, "n")
    assert len(triton.calls) == before


async def test_the_size_of_repeated_requests_is_bounded(gateway: RunningGateway, triton: FakeTriton) -> None:
    """Half a megabyte, escaped twice, takes four times as much, once for each answer."""
    before = len(triton.calls)
    schema = {"description": "\U0001f600" * 120_000}
    body: dict[str, Any] = {"model": "seeded", "prompt": "x", "n": 16, "seed": 5, "guided_json": schema}
    response = await gateway.http.post("/v1/completions", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (413, "n")
    assert len(triton.calls) == before
    for less in ({"n": 3}, {"seed": None}):  # which is written down once
        before = len(triton.calls)
        response = await gateway.http.post("/v1/completions", json=body | less)
        assert response.status_code != 413
        assert len(triton.calls) > before


@pytest.mark.parametrize("route", TEXT_ROUTES, ids=str)
@pytest.mark.parametrize("model", ["odd", "odd-later", "odd-of-ours"])
async def test_an_odd_response_is_the_models_failure(gateway: RunningGateway, route: TextRoute, model: str) -> None:
    response = await gateway.http.post(route.path, json=route.body(model))
    if route.stream and model == "odd-later":
        assert response.status_code == 200
        (*_, last) = (line for line in response.text.splitlines() if line)
        error = json.loads(last.removeprefix("data: "))["error"]
    else:
        assert response.status_code == 502
        error = response.json()["error"]
    assert error["code"] == "model_failed"
