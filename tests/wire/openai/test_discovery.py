"""Discovery: models that load, unload, fail and return, on one Triton or several."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import grpc
import pytest

from gateway.triton.client import TritonClient
from tests.fakes.scripted_model import Fail, Pause, Say, ScriptedModel
from tests.fakes.tcp_proxy import TcpProxy
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import CHAT_STREAM, TEXT_ROUTES, chat, check_error, check_error_body, events

pytestmark = pytest.mark.asyncio(loop_scope="session")

HELLO = ScriptedModel("hello")
ENDLESS = ScriptedModel("endless", (Say("tick "), Pause(0.01)) * 3000)


@contextlib.asynccontextmanager
async def run_tritons(*models: tuple[ScriptedModel, ...]) -> AsyncIterator[list[FakeTriton]]:
    fakes = [await FakeTriton(served).start() for served in models]
    try:
        yield fakes
    finally:
        await asyncio.gather(*(fake.stop() for fake in fakes))


async def model_names(gateway: RunningGateway) -> set[str]:
    return {model["id"] for model in (await gateway.http.get("/v1/models")).json()["data"]}


async def wait_for_models(gateway: RunningGateway, expected: set[str], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while await model_names(gateway) != expected:
            await asyncio.sleep(0.02)


async def wait_for_answer(gateway: RunningGateway, model: str = "hello", seconds: float = 30.0) -> None:
    """Wait until the model answers again; until then, a caller gets a `Retry-After`."""
    async with asyncio.timeout(seconds):
        while (response := await chat(gateway, model)).status_code != 200:
            check_unavailable(response)
            await asyncio.sleep(0.02)


def check_unavailable(response) -> None:
    check_error(response, 503, "overloaded_error", "overloaded")
    assert int(response.headers["retry-after"]) >= 1


async def test_models_appear_and_vanish() -> None:
    async with run_tritons((HELLO, ScriptedModel("b", parameters={"served_name": "b:7b"}))) as (triton,):
        triton.loaded = {"hello"}
        async with run_gateway(triton.url) as gateway:
            assert await model_names(gateway) == {"hello"}
            check_error(await chat(gateway, "b:7b"), 404, code="model_not_found", param="model")
            triton.loaded.add("b")
            await wait_for_models(gateway, {"hello", "b:7b"})
            assert (await chat(gateway, "b:7b")).status_code == 200
            assert triton.calls[-1].model == "b"
            triton.loaded.remove("b")
            await wait_for_models(gateway, {"hello"})
            check_error(await chat(gateway, "b:7b"), 404, code="model_not_found", param="model")
            assert (await chat(gateway)).status_code == 200


async def test_a_model_may_be_replaced_under_its_name() -> None:
    async with run_tritons((HELLO,)) as (triton,), run_gateway(triton.url) as gateway:
        triton.models["hello"] = replace(HELLO, parameters={"owned_by": "another"})
        async with asyncio.timeout(30):
            while (await gateway.http.get("/v1/models/hello")).json()["owned_by"] != "another":
                await asyncio.sleep(0.02)


async def test_readiness_needs_a_server_and_a_model() -> None:
    async with run_tritons((HELLO,)) as (triton,):
        triton.loaded.clear()
        async with run_gateway(triton.url, wait=False) as gateway:
            await asyncio.sleep(0.3)
            assert (await gateway.http.get("/health/ready")).status_code == 503
            assert (await gateway.http.get("/health/live")).status_code == 200
            triton.loaded.add("hello")
            await gateway.ready()
            triton.loaded.clear()
            await gateway.until("/health/ready", lambda response: response.status_code == 503)


async def test_a_gateway_may_start_before_its_triton() -> None:
    async with run_tritons((HELLO,)) as (triton,):
        proxy = TcpProxy(triton.url)
        await proxy.listen()
        await proxy.drop()
        async with run_gateway(proxy.url, wait=False) as gateway:
            assert (await gateway.http.get("/health/live")).status_code == 200
            assert (await gateway.http.get("/health/ready")).status_code == 503
            for route in TEXT_ROUTES:
                check_unavailable(await gateway.http.post(route.path, json=route.body("hello")))
            assert (await gateway.http.get("/v1/models")).status_code in (200, 503)
            await proxy.listen()
            await gateway.ready()
            assert (await chat(gateway)).status_code == 200
        await proxy.drop()


async def test_a_triton_that_restarts_is_used_again() -> None:
    async with run_tritons((HELLO, ENDLESS)) as (triton,):
        proxy = await TcpProxy(triton.url).listen()
        async with run_gateway(proxy.url) as gateway:
            streams = [
                asyncio.ensure_future(gateway.http.post(route.path, json=route.body("endless", text="a" * at)))
                for at, route in enumerate(TEXT_ROUTES)
            ]
            async with asyncio.timeout(30):
                while triton.active < len(TEXT_ROUTES):
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            await proxy.drop()
            for route, stream in zip(TEXT_ROUTES, streams, strict=True):
                response = await asyncio.wait_for(stream, 30)
                if route.stream:
                    assert response.status_code == 200
                    *_, last = events(response)
                    check_error_body(last, last["error"]["type"])
                    assert last["error"]["type"] in ("overloaded_error", "server_error")
                else:
                    assert response.status_code in (502, 503)
            for route in TEXT_ROUTES:
                check_unavailable(await gateway.http.post(route.path, json=route.body("hello")))
            await gateway.until("/health/ready", lambda response: response.status_code == 503)
            assert (await gateway.http.get("/health/live")).status_code == 200
            for route in TEXT_ROUTES:
                check_unavailable(await gateway.http.post(route.path, json=route.body("hello")))
            await proxy.listen()
            await gateway.ready()
            for route in TEXT_ROUTES:
                response = await gateway.http.post(route.path, json=route.body("hello"))
                assert (response.status_code, route.text(response)[-6:]) == (200, "today?")
        await proxy.drop()


async def test_a_triton_that_shuts_down_in_order() -> None:
    async with run_tritons((HELLO, ENDLESS)) as (triton,), run_gateway(triton.url) as gateway:
        stream = asyncio.ensure_future(gateway.http.post(CHAT_STREAM.path, json=CHAT_STREAM.body("endless")))
        await triton.call("endless")
        await asyncio.sleep(0.05)
        await triton.stop()
        *_, last = events(await asyncio.wait_for(stream, 30))
        assert last != "[DONE]" and last["error"]["message"]
        check_unavailable(await chat(gateway))
        await triton.start()
        await wait_for_answer(gateway)


@pytest.mark.parametrize("down_is", [0, 1])
async def test_one_of_two_tritons_may_be_down(down_is: int) -> None:
    async with run_tritons((HELLO, ScriptedModel("a")), (HELLO, ScriptedModel("b"))) as (first, second):
        proxy = await TcpProxy(second.url).listen()
        urls = [proxy.url, first.url] if down_is == 0 else [first.url, proxy.url]
        async with run_gateway(*urls) as gateway:
            await wait_for_models(gateway, {"hello", "a", "b"})
            for model, holder in (("a", first), ("b", second)):
                before = len(holder.calls)
                assert (await chat(gateway, model)).status_code == 200
                assert len(holder.calls) == before + 1
            await proxy.drop()
            assert {(await chat(gateway)).status_code for _ in range(10)} <= {200, 503}
            assert (await chat(gateway, "a")).status_code == 200
            response = await chat(gateway, "b")
            assert response.status_code in (404, 503)
            assert (await gateway.http.get("/health/ready")).status_code == 200
            await asyncio.sleep(0.3)
            assert {(await chat(gateway)).status_code for _ in range(10)} == {200}
            response = await chat(gateway, "b")
            assert response.status_code in (404, 503)
            await proxy.listen()
            await wait_for_models(gateway, {"hello", "a", "b"})
            await wait_for_answer(gateway, "b")
        await proxy.drop()


async def test_two_tritons_share_the_work() -> None:
    async with run_tritons((HELLO,), (HELLO,)) as (first, second), run_gateway(first.url, second.url) as gateway:
        async with asyncio.timeout(30):
            while not (first.calls and second.calls):
                await asyncio.gather(*(chat(gateway) for _ in range(8)))


async def test_the_prompts_of_one_request_are_spread() -> None:
    slow = ScriptedModel("slow", (Pause(0.2), Say("x", "stop")))
    async with (
        run_tritons((slow, ScriptedModel("a")), (slow, ScriptedModel("b"))) as (first, second),
        run_gateway(first.url, second.url) as gateway,
    ):
        await wait_for_models(gateway, {"slow", "a", "b"})
        for _ in range(2):
            response = await gateway.http.post("/v1/completions", json={"model": "slow", "prompt": ["a"] * 6})
            assert [choice["text"] for choice in response.json()["choices"]] == ["x"] * 6
            assert len(first.calls) == len(second.calls) == 3
            first.calls.clear()
            second.calls.clear()


async def test_the_card_of_a_model_has_its_url_and_permissions() -> None:
    scripts = (
        HELLO,
        ScriptedModel("vectors", is_embedding_model=True),
        ScriptedModel("speech", is_transcription_model=True),
    )
    async with run_tritons(scripts) as (triton,), run_gateway(triton.url, public_url="https://api.example") as gateway:
        cards = {card["id"]: card for card in (await gateway.http.get("/v1/models")).json()["data"]}
        assert {name: card["url"].removeprefix("https://api.example") for name, card in cards.items()} == {
            "hello": "/v1/chat/completions",
            "vectors": "/v1/embeddings",
            "speech": "/v1/audio/transcriptions",
        }
        tells = {name: card["permission"][0]["allow_logprobs"] for name, card in cards.items()}
        assert tells == {"hello": True, "vectors": False, "speech": False}


async def test_a_model_without_a_creation_time_has_the_time_of_its_discovery() -> None:
    dated, undated = (
        ScriptedModel("dated", parameters={"created": "5"}),
        ScriptedModel("undated", parameters={"created": None}),
    )
    async with run_tritons((dated, undated, ScriptedModel("zero", parameters={"created": "0"}))) as (triton,):
        before = int(time.time())
        async with run_gateway(triton.url, discovery_interval=0.05) as gateway:
            cards = (await gateway.http.get("/v1/models")).json()["data"]
            created = {card["id"]: card["created"] for card in cards}
            assert created.pop("dated") == 5
            assert all(before <= value <= time.time() for value in created.values())
            triton.loaded.discard("undated")
            await wait_for_models(gateway, {"dated", "zero"})
            await asyncio.sleep(1)
            triton.loaded.add("undated")
            await wait_for_models(gateway, {"dated", "zero", "undated"})
            card = (await gateway.http.get("/v1/models/undated")).json()
            assert card["created"] == card["permission"][0]["created"] == created["undated"]


async def test_a_frozen_triton_does_not_block_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        run_tritons((HELLO,), (HELLO, ScriptedModel("a"))) as (first, second),
        run_gateway(first.url, second.url) as gateway,
    ):
        await wait_for_models(gateway, {"hello", "a"})
        monkeypatch.setattr(TritonClient, "repository_index", partialmethod(TritonClient.repository_index, timeout=600))
        second.frozen = True
        await asyncio.sleep(0.2)
        first.models["late"] = ScriptedModel("late")
        first.loaded.add("late")
        async with asyncio.timeout(30):
            while "late" not in await model_names(gateway):
                await asyncio.sleep(0.02)
        assert (await chat(gateway, "late")).status_code == 200
        second.frozen = False


async def test_a_silent_triton_does_not_block_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that hangs must not keep the gateway from the others."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    monkeypatch.setattr(TritonClient, "repository_index", partialmethod(TritonClient.repository_index, timeout=600))
    silent = await asyncio.start_server(swallow, "127.0.0.1", 0)
    silent_url = f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    async with run_tritons((HELLO,)) as (triton,), run_gateway(silent_url, triton.url, wait=False) as gateway:
        await gateway.ready()
        assert (await chat(gateway)).status_code == 200
        triton.models["late"] = ScriptedModel("late")
        triton.loaded.add("late")
        await wait_for_models(gateway, {"hello", "late"})
    silent.close()


ODD = {
    "other tensors": ScriptedModel("odd", is_described=False),
    "operations are no JSON": ScriptedModel("odd", parameters={"operations": "chat"}),
    "operations are no list": ScriptedModel("odd", parameters={"operations": '{"chat": 1}'}),
    "operations are unknown": ScriptedModel("odd", parameters={"operations": '["dance"]'}),
    "signature is unknown": ScriptedModel("odd", parameters={"signature": "morse"}),
    "created is no number": ScriptedModel("odd", parameters={"created": "yesterday"}),
    "context is no number": ScriptedModel("odd", parameters={"context_length": "long"}),
    "template is missing": ScriptedModel("odd", parameters={"chat_template": None}),
    "template is broken": ScriptedModel("odd", parameters={"chat_template": "{% for %}"}),
    "special tokens are no JSON": ScriptedModel("odd", parameters={"special_tokens": "[1"}),
    "special tokens are a list": ScriptedModel("odd", parameters={"special_tokens": '["a"]'}),
    "special tokens are objects": ScriptedModel(
        "odd", parameters={"special_tokens": '{"bos_token": {"content": "a"}}'}
    ),
}


UNREADABLE = {
    "tool_call_parser": "morse",
    "reasoning_parser": "mind",
    "modalities": "text",
    "special_tokens_in_content": "perhaps",
    "control_tokens": '{"a": 1}',
}


@pytest.mark.parametrize(("name", "value"), UNREADABLE.items())
async def test_a_model_with_unreadable_answers_is_left_out(name: str, value: str) -> None:
    async with (
        run_tritons((ScriptedModel("odd", parameters={name: value}), HELLO)) as (triton,),
        run_gateway(triton.url) as gateway,
    ):
        assert await model_names(gateway) == {"hello"}
        check_error(await chat(gateway, "odd"), 404, code="model_not_found", param="model")


@pytest.mark.parametrize("what", ODD)
async def test_a_badly_described_model_does_not_affect_others(what: str) -> None:
    """Such a model is left out or serves what it can; the gateway itself never fails."""
    async with run_tritons((ODD[what], HELLO)) as (triton,), run_gateway(triton.url) as gateway:
        assert "hello" in await model_names(gateway)
        assert (await chat(gateway)).status_code == 200
        for route in TEXT_ROUTES:
            response = await gateway.http.post(route.path, json=route.body("odd"))
            assert response.status_code in (200, 400, 404, 502), response.text
            if "odd" not in await model_names(gateway):
                assert response.status_code != 200


async def test_two_models_of_one_name() -> None:
    twin = ScriptedModel("twin", parameters={"served_name": "hello"})
    async with run_tritons((HELLO, twin)) as (triton,), run_gateway(triton.url) as gateway:
        listing = (await gateway.http.get("/v1/models")).json()["data"]
        assert [model["id"] for model in listing] == ["hello"]
        assert (await chat(gateway)).status_code == 200


async def test_a_server_on_a_unix_socket(tmp_path: Path) -> None:
    fake = await FakeTriton([HELLO], tmp_path / "grpc:1").start()
    try:
        async with run_gateway(fake.url) as gateway:
            assert (await chat(gateway, "hello")).status_code == 200
            await fake.stop()
            await gateway.until("/health/ready", lambda response: response.status_code == 503)
            check_unavailable(await chat(gateway, "hello"))
            await fake.start()
            await wait_for_answer(gateway)
    finally:
        await fake.stop()


async def test_a_server_with_a_secret_lists_its_models_to_those_who_send_it() -> None:
    async with run_tritons((HELLO,)) as (triton,):
        triton.secret = "open-sesame"
        async with run_gateway(triton.url, triton_secret=triton.secret) as gateway:
            assert (await chat(gateway, "hello")).status_code == 200
            assert triton.secret not in (await gateway.http.get("/health/ready")).text


@pytest.mark.parametrize("secret", [None, "another"])
async def test_a_server_that_refuses_to_list_its_models_is_not_ready(
    secret: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    async with run_tritons((HELLO,)) as (triton,):
        triton.secret = "open-sesame"
        async with run_gateway(triton.url, triton_secret=secret, wait=False, log_level="warning") as gateway:
            reached = {"url": triton.url, "reachable": True}
            ready = await gateway.until("/health/ready", lambda response: reached in response.json()["triton"])
            assert (ready.status_code, ready.json()["models"]) == (503, [])
            check_error(await chat(gateway, "hello"), 404, code="model_not_found", param="model")
            await asyncio.sleep(0.4)
            triton.secret = ""
            await gateway.ready()
            assert (await chat(gateway, "hello")).status_code == 200
    logged = capfd.readouterr()
    lines = [line for line in (logged.out + logged.err).splitlines() if "triton refuses to list its models" in line]
    assert len(lines) == 1
    assert "TRITONIC_TRITON_SECRET" in lines[0] and "This protocol is restricted" in lines[0]
    assert "another" not in logged.out + logged.err


async def test_a_model_whose_process_is_gone_is_not_ready() -> None:
    """Triton still reports the model as ready."""
    lost = ScriptedModel("hello", (Fail("Stub process 'hello_0_0' is not healthy.", grpc.StatusCode.INTERNAL),))
    async with run_tritons((lost, ScriptedModel("other"))) as (triton,), run_gateway(triton.url) as gateway:
        check_unavailable(await chat(gateway, "hello"))
        num_calls = len(triton.calls)
        assert (await gateway.http.get("/health/ready")).json()["models"] == ["other"]
        check_unavailable(await chat(gateway, "hello"))
        assert len(triton.calls) == num_calls, "the model was asked again at once"
        triton.models["hello"] = HELLO
        await wait_for_answer(gateway)


async def test_the_last_model_without_a_process_is_not_ready() -> None:
    lost = ScriptedModel("hello", (Fail("Stub process 'hello_0_0' is not healthy.", grpc.StatusCode.INTERNAL),))
    async with run_tritons((lost,)) as (triton,), run_gateway(triton.url) as gateway:
        check_unavailable(await chat(gateway, "hello"))
        assert (await gateway.http.get("/health/ready")).status_code == 503


async def test_the_response_has_the_requested_model_name(gateway: RunningGateway) -> None:
    card = (await gateway.http.get("/v1/models/dall-e-3")).json()
    assert (card["id"], card["model"], card["root"]) == ("dall-e-3", "dall-e-3", "shapes")
    async with gateway.client() as client:
        assert (await client.models.retrieve("dall-e-3")).id == "dall-e-3"
        assert (await client.models.retrieve("shapes")).id == "shapes"
