"""The values of /metrics after known requests."""

import asyncio
import re

import pytest

from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import CHAT, CHAT_STREAM, STREAM_ROUTES, TEXT, TEXT_ROUTES, TextRoute

pytestmark = pytest.mark.asyncio(loop_scope="session")


class ModelMetrics:
    """Return the samples of one model on one route."""

    def __init__(self, samples: dict[str, float], route: TextRoute, model: str) -> None:
        self._labels = {f'model="{model}"', f'route="{route.path}"'}
        self._samples = samples

    def __call__(self, name: str, **other_labels: str) -> float:
        labels = self._labels | {f'{key}="{value}"' for key, value in other_labels.items()}
        values = [
            value
            for sample, value in self._samples.items()
            if sample.split("{")[0] == f"tritonic_{name}" and labels <= set(re.findall(r'\w+="[^"]*"', sample))
        ]
        return sum(values)


async def counted(gateway: RunningGateway, route: TextRoute, model: str) -> ModelMetrics:
    return ModelMetrics(await gateway.metrics(), route, model)


@pytest.mark.parametrize("route", TEXT_ROUTES, ids=str)
async def test_an_answer_updates_the_metrics(triton: FakeTriton, route: TextRoute) -> None:
    """The model's first token takes 0.2 s; it generates four tokens in all, the others within 0.2 s."""
    async with run_gateway(triton.url) as gateway:
        answers = await asyncio.gather(*(gateway.http.post(route.path, json=route.body("late")) for _ in range(2)))
        assert {answer.status_code for answer in answers} == {200}
        count = await counted(gateway, route, "late")
        assert count("requests_total") == count("requests_total", status="200") == 2
        assert count("request_seconds_count") == 2
        assert count("request_seconds_sum") >= 0.8
        assert count("tokens_in_total") == 2 * 9
        assert count("tokens_out_total") == 2 * 4
        assert count("in_flight") == 0
        assert count("cancellations_total") == 0
        if route.stream:
            assert count("time_to_first_token_seconds_count") == 2
            assert 0.4 <= count("time_to_first_token_seconds_sum") < count("request_seconds_sum")
            # Three tokens came after the first, in each of two answers.
            assert count("inter_token_seconds_count") == 2 * 3
            assert 0.35 <= count("inter_token_seconds_sum") < count("request_seconds_sum")


@pytest.mark.parametrize("route", TEXT_ROUTES, ids=str)
async def test_tokens_of_several_answers_count_once(gateway: RunningGateway, route: TextRoute) -> None:
    before = await counted(gateway, route, "trio")
    assert (await gateway.http.post(route.path, json=route.body("trio", n=3))).status_code == 200
    after = await counted(gateway, route, "trio")
    assert after("tokens_out_total") - before("tokens_out_total") == 7
    assert after("tokens_in_total") - before("tokens_in_total") == 9


async def test_failures_count_by_status(triton: FakeTriton) -> None:
    async with run_gateway(triton.url) as gateway:
        for model in ("broken", "full", "broken-later"):
            for route in (CHAT, CHAT_STREAM):
                await gateway.http.post(route.path, json=route.body(model))
        await gateway.http.post(CHAT.path, json=CHAT.body("hello", n=0))
        await gateway.http.post(CHAT.path, json=CHAT.body("nothing"))
        samples = await gateway.metrics()
        assert ModelMetrics(samples, CHAT, "broken")("requests_total", status="502") == 2
        assert ModelMetrics(samples, CHAT, "full")("requests_total", status="429") == 2
        assert ModelMetrics(samples, CHAT, "broken-later")("requests_total", status="502") >= 1
        statuses = [
            value for name, value in samples.items() if name.startswith("tritonic_requests_total") and CHAT.path in name
        ]
        assert sum(statuses) == 8
        assert any(name.startswith("tritonic_requests_total") and 'status="400"' in name for name in samples)
        assert any(name.startswith("tritonic_requests_total") and 'status="404"' in name for name in samples)
        assert sum(value for name, value in samples.items() if name.startswith("tritonic_in_flight")) == 0


@pytest.mark.parametrize("route", TEXT_ROUTES, ids=str)
@pytest.mark.parametrize("model", ["silent", "silent-later", "endless"])
async def test_disconnects_are_counted(
    gateway: RunningGateway, triton: FakeTriton, route: TextRoute, model: str
) -> None:
    before, calls = await counted(gateway, route, model), len(triton.calls)
    asking = asyncio.ensure_future(gateway.http.post(route.path, json=route.body(model)))
    await triton.call(model, calls)
    await asyncio.sleep(0.03)
    during = await counted(gateway, route, model)
    assert during("in_flight") == before("in_flight") + 1
    asking.cancel()
    await triton.cancelled_call(model, calls)
    await asyncio.sleep(0.03)
    after = await counted(gateway, route, model)
    assert after("in_flight") == before("in_flight")
    assert after("cancellations_total") == before("cancellations_total") + 1
    assert after("requests_total") == before("requests_total") + 1


@pytest.mark.parametrize("route", STREAM_ROUTES, ids=str)
async def test_tokens_of_an_unfinished_answer_count(
    gateway: RunningGateway, triton: FakeTriton, route: TextRoute
) -> None:
    before, calls = await counted(gateway, route, "endless"), len(triton.calls)
    async with gateway.http.stream("POST", route.path, json=route.body("endless")) as response:
        ticks = 0
        async for line in response.aiter_lines():
            ticks += "tick" in line
            if ticks == 5:
                break
    await triton.cancelled_call("endless", calls)
    assert (await counted(gateway, route, "endless"))("tokens_out_total") - before("tokens_out_total") >= 5


async def test_unknown_models_create_no_metric_series(triton: FakeTriton) -> None:
    async with run_gateway(triton.url) as gateway:

        async def junk(number: int) -> None:
            for route in (CHAT, CHAT_STREAM, TEXT):
                await gateway.http.post(route.path, json=route.body(f"junk-{number}"))
            await gateway.http.get(f"/v1/junk-{number}")
            await gateway.http.get(f"/v1/models/junk-{number}")
            await gateway.http.get(f"/junk-{number}?junk-{number}=1")
            await gateway.http.request("PUT" if number % 2 else "DELETE", f"/v1/chat/completions?junk-{number}")

        await junk(0)
        before = await gateway.metrics()
        await asyncio.gather(*(junk(number) for number in range(1, 20)))
        after = await gateway.metrics()
        assert not [name for name in after if "junk" in name]
        # Nothing but the buckets and sums of what was there before, and of /metrics itself.
        assert not [name for name in after.keys() - before.keys() if "/metrics" not in name]


async def test_the_exposition_is_prometheus(gateway: RunningGateway) -> None:
    response = await gateway.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    for line in response.text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) \w+ .*|\w+(\{(\w+="[^"]*",?)+\})? [-+0-9.eE]+(nf|aN)?', line), line
