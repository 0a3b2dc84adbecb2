"""Models that no longer answer, on servers that report them as ready."""

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2 as pb

from gateway.models import circuit_breaker
from tests.fakes.scripted_model import HELLO, DrawImages, Fail, Pause, ScriptedModel, Step
from tests.fakes.triton import FakeTriton
from tests.fakes.triton_messages import InferCall
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import CHAT, STREAM_ROUTES, TEXT_STREAM, TextRoute, chat

pytestmark = pytest.mark.asyncio(loop_scope="session")

DEAD = (Fail("Error generating stream: EngineCore encountered an issue. See stack trace (above) for the root cause."),)
DRAWING = {"model": "painter", "prompt": "a cat", "size": "128x128"}
K = circuit_breaker.FAILURE_THRESHOLD


class PoisonedTriton(FakeTriton):
    """Fails on requests with the word poison, and answers all others."""

    async def _play(
        self, request: pb.ModelInferRequest, call: InferCall
    ) -> AsyncIterator[pb.ModelInferResponse | Fail]:
        if "poison" in call.prompt:
            yield DEAD[0]
            return
        async for response in super()._play(request, call):
            yield response


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "_MIN_PROBE_SECONDS", 0.05)
    monkeypatch.setattr(circuit_breaker, "_MAX_PROBE_SECONDS", 0.1)


def set_script(triton: FakeTriton, name: str, script: tuple[Step, ...]) -> None:
    triton.models[name] = ScriptedModel(name, script)


async def post_many(
    gateway: RunningGateway, count: int, route: TextRoute = CHAT, model: str = "hello", text: str = "Hi"
) -> list[int]:
    answers = [await gateway.http.post(route.path, json=route.body(model, text)) for _ in range(count)]
    return [answer.status_code for answer in answers]


def is_failing(response: httpx.Response) -> bool:
    return bool(response.json()["failing"])


async def circuit_gauge(gateway: RunningGateway) -> list[float]:
    return [value for name, value in (await gateway.metrics()).items() if name.startswith("tritonic_model_failing{")]


@pytest.mark.parametrize("route", [CHAT, TEXT_STREAM], ids=str)
async def test_a_dead_engine_is_not_ready_until_it_answers(route: TextRoute) -> None:
    triton = await FakeTriton([ScriptedModel("hello", DEAD), ScriptedModel("other")]).start()
    async with run_gateway(triton.url) as gateway:
        assert (await gateway.http.get("/health/ready")).json()["failing"] == []
        assert await post_many(gateway, K, route) == [502] * K
        ready = await gateway.until("/health/ready", is_failing)
        # Its neighbour serves.
        assert (ready.status_code, ready.json()["models"], ready.json()["failing"]) == (200, ["other"], ["hello"])
        assert await post_many(gateway, 1, route, "other") == [200]
        assert await circuit_gauge(gateway) == [1.0]
        # There is no other: requests are tried all the same.
        before = len(triton.calls)
        assert await post_many(gateway, 2, route) == [502, 502]
        assert len(triton.calls) == before + 2
        triton.loaded.discard("other")
        ready = await gateway.until("/health/ready", lambda response: response.status_code == 503)
        assert ready.json() == {
            "status": "not ready",
            "triton": [{"url": triton.url, "reachable": True}],
            "models": [],
            "failing": ["hello"],
        }
        # Nobody need ask for it to be found well again.
        set_script(triton, "hello", HELLO)
        ready = await gateway.until("/health/ready", lambda response: response.status_code == 200)
        assert (ready.json()["models"], ready.json()["failing"]) == (["hello"], [])
        assert await circuit_gauge(gateway) == [0.0]
        probes = len(triton.probes)
        assert await post_many(gateway, 1, route) == [200]
        await asyncio.sleep(0.3)
        assert len(triton.probes) == probes
    await triton.stop()


async def test_an_answer_closes_the_circuit_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "_MIN_PROBE_SECONDS", 30)
    triton = await FakeTriton([ScriptedModel("hello", DEAD)]).start()
    async with run_gateway(triton.url) as gateway:
        await post_many(gateway, K)
        await gateway.until("/health/ready", is_failing)
        set_script(triton, "hello", HELLO)
        assert await post_many(gateway, 1) == [200]
        assert (await gateway.http.get("/health/ready")).json()["models"] == ["hello"]
    await triton.stop()


async def test_a_restarted_server_has_closed_circuits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "_MIN_PROBE_SECONDS", 30)
    triton = await FakeTriton([ScriptedModel("hello", DEAD)]).start()
    async with run_gateway(triton.url) as gateway:
        await post_many(gateway, K)
        await gateway.until("/health/ready", is_failing)
        await triton.stop()
        await gateway.until("/health/ready", lambda response: not response.json()["triton"][0]["reachable"])
        set_script(triton, "hello", HELLO)
        await triton.start()
        await gateway.ready()
        assert await post_many(gateway, 1) == [200]
    await triton.stop()


@pytest.mark.parametrize("route", [CHAT, TEXT_STREAM], ids=str)
async def test_another_server_gets_the_requests(route: TextRoute) -> None:
    dead, well = (
        await FakeTriton([ScriptedModel("hello", DEAD)]).start(),
        await FakeTriton([ScriptedModel("hello")]).start(),
    )
    async with run_gateway(dead.url, well.url) as gateway:
        await gateway.until("/health/ready", lambda r: all(one["reachable"] for one in r.json()["triton"]))
        statuses = await post_many(gateway, K, route)
        assert set(statuses) == {502}  # what fails has the least to do
        assert await post_many(gateway, 5, route) == [200] * 5
        ready = (await gateway.http.get("/health/ready")).json()
        assert (ready["models"], ready["failing"]) == (["hello"], [])
        assert len(well.calls) == 5 and len(dead.calls) == K
        await _wait_until(lambda: len(dead.probes) > 2)
        set_script(dead, "hello", HELLO)
        await asyncio.sleep(0.3)
        assert await post_many(gateway, 1, route) == [200]
        assert len(dead.calls) == K + 1  # of those that have as little to do, it is the first
    await asyncio.gather(dead.stop(), well.stop())


async def _wait_until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


async def test_failing_requests_of_one_caller_do_not_open_the_circuit() -> None:
    """The word makes the engine fail; a probe shows the gateway that other requests succeed."""
    triton = await PoisonedTriton([ScriptedModel("hello")]).start()
    async with run_gateway(triton.url) as gateway:
        for _ in range(4):
            assert await post_many(gateway, K + 1, text="poison") == [502] * (K + 1)
            ready = await gateway.http.get("/health/ready")
            assert (ready.status_code, ready.json()["failing"]) == (200, [])
        assert await post_many(gateway, 1) == [200]
        assert 0 < len(triton.probes) <= 4 * (K + 1) / K
        assert await circuit_gauge(gateway) in ([], [0.0])
    await triton.stop()


@pytest.mark.parametrize(
    "script",
    [
        (
            Fail(
                "[invalid_value:sampling_parameters] The option top_k must be at most 9.",
                grpc.StatusCode.INVALID_ARGUMENT,
            ),
        ),
        (Fail("[overloaded] 1024 requests wait already.", grpc.StatusCode.UNAVAILABLE),),
        (Fail("[context_length_exceeded:text_input] The prompt has 9000 tokens.", grpc.StatusCode.INVALID_ARGUMENT),),
    ],
    ids=["mistake", "queue", "length"],
)
async def test_failures_unrelated_to_the_engine_do_not_count(script: tuple[Step, ...]) -> None:
    triton = await FakeTriton([ScriptedModel("hello", script)]).start()
    async with run_gateway(triton.url) as gateway:
        assert all(status in (400, 429) for status in await post_many(gateway, 2 * K))
        await asyncio.sleep(0.1)
        assert not triton.probes
        assert (await gateway.http.get("/health/ready")).json()["failing"] == []
    await triton.stop()


async def test_disconnects_do_not_count_as_failures() -> None:
    triton = await FakeTriton([ScriptedModel("hello", (*HELLO[:1], Pause()))]).start()
    async with run_gateway(triton.url) as gateway:
        for route in STREAM_ROUTES * K:
            async with gateway.http.stream("POST", route.path, json=route.body("hello")) as response:
                await anext(response.aiter_bytes())
        await asyncio.sleep(0.2)
        assert not triton.probes
    await triton.stop()


async def test_a_success_resets_the_count_of_failures() -> None:
    triton = await PoisonedTriton([ScriptedModel("hello")]).start()
    async with run_gateway(triton.url) as gateway:
        for _ in range(3):
            await post_many(gateway, K - 1, text="poison")
            await post_many(gateway, 1)
        await asyncio.sleep(0.1)
        assert not triton.probes
    await triton.stop()


async def test_a_hanging_engine_opens_the_circuit() -> None:
    triton = await FakeTriton([ScriptedModel("hello", (Pause(),))]).start()
    async with run_gateway(triton.url, request_timeout=0.2) as gateway:
        answers = await asyncio.gather(*(chat(gateway) for _ in range(K)))
        assert {answer.status_code for answer in answers} == {504}
        await gateway.until("/health/ready", is_failing)
        set_script(triton, "hello", HELLO)
        await gateway.ready()
    await triton.stop()


async def test_embedding_models_are_probed_too() -> None:
    triton = await FakeTriton([ScriptedModel("vectors", is_embedding_model=True)]).start()
    real, broken = FakeTriton._play, True

    async def play_dead(fake: FakeTriton, request: pb.ModelInferRequest, call: InferCall) -> AsyncIterator[object]:
        if broken:
            yield DEAD[0]
            return
        async for response in real(fake, request, call):
            yield response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeTriton, "_play", play_dead)
        async with run_gateway(triton.url) as gateway:
            for _ in range(K):
                answer = await gateway.http.post("/v1/embeddings", json={"model": "vectors", "input": "a"})
                assert answer.status_code == 502
            await gateway.until("/health/ready", is_failing)
            broken = False
            await gateway.ready()
            assert [text.decode() for text in triton.probes[-1].tensors["text"]] == ["Hello"]
    await triton.stop()


async def test_an_image_model_is_avoided_and_stays_ready() -> None:
    """Image models are not probed: an image is expensive, and a failure may be the request's fault."""
    dead = await FakeTriton([ScriptedModel("painter", DEAD, is_image_model=True)]).start()
    well = await FakeTriton([ScriptedModel("painter", (DrawImages(),), is_image_model=True)]).start()
    async with run_gateway(dead.url, well.url) as gateway:
        await gateway.until("/health/ready", lambda r: all(one["reachable"] for one in r.json()["triton"]))
        statuses = [(await gateway.http.post("/v1/images/generations", json=DRAWING)).status_code for _ in range(K + 2)]
        assert statuses == [502] * K + [200, 200]
        assert (await gateway.http.get("/health/ready")).json()["models"] == ["painter"]
        assert not dead.probes
    await asyncio.gather(dead.stop(), well.stop())
