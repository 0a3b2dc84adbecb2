"""LoRA adapters are models of their own: `/v1/models` lists them, and their requests name the adapter to the model."""

import asyncio
import json

import pytest

from tests.fakes.scripted_model import Say, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import run_gateway
from tests.wire.openai.text_requests import chat, check_error

pytestmark = pytest.mark.asyncio(loop_scope="session")

LLAMA = ScriptedModel("llama", (Say("Hello", "stop"),), parameters={"served_name": "llama-8b", "adapters": '["sql"]'})


async def test_adapters_are_listed_and_named_to_the_model() -> None:
    triton = await FakeTriton([LLAMA]).start()
    async with run_gateway(triton.url) as gateway:
        listed = (await gateway.http.get("/v1/models")).json()["data"]
        assert {(m["id"], m["root"], m["parent"]) for m in listed} == {
            ("llama-8b", "llama-8b", None),
            ("sql", "llama-8b", "llama-8b"),
        }
        answer = await chat(gateway, "sql")
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == "sql"
        other = await chat(gateway, "llama-8b")
        assert other.status_code == 200, other.text
        completion = await gateway.http.post("/v1/completions", json={"model": "sql", "prompt": "SELECT"})
        assert completion.status_code == 200, completion.text
        check_error(await chat(gateway, "xml"), 404, "invalid_request_error", "model_not_found", param="model")
    names = [json.loads(call.tensors["sampling_parameters"][0]).get("lora_name") for call in triton.calls]
    assert [call.model for call in triton.calls] == ["llama"] * 3 and names == ["sql", None, "sql"]
    await triton.stop()


async def test_a_model_whose_layout_carries_no_adapters_is_left_out() -> None:
    embedding = ScriptedModel("vectors", is_embedding_model=True, parameters={"adapters": '["sql"]'})
    other = ScriptedModel("vectors-2", is_embedding_model=True)
    triton = await FakeTriton([embedding, other, LLAMA]).start()
    async with run_gateway(triton.url) as gateway:
        listed = (await gateway.http.get("/v1/models")).json()["data"]
        assert {m["id"] for m in listed} == {"llama-8b", "sql", "vectors-2"}
    await triton.stop()


async def test_the_name_of_an_adapter_is_its_own() -> None:
    own_name = ScriptedModel("same", parameters={"adapters": '["same"]'})
    twice = ScriptedModel("twice", parameters={"adapters": '["a", "a"]'})
    nameless = ScriptedModel("nameless", parameters={"adapters": '[""]'})
    odd = ScriptedModel("odd", (Say("Hello", "stop"),), parameters={"adapters": '["team/sql v2: \u00e9"]'})
    triton = await FakeTriton([own_name, twice, nameless, odd]).start()
    async with run_gateway(triton.url) as gateway:
        listed = (await gateway.http.get("/v1/models")).json()["data"]
        assert {m["id"] for m in listed} == {"odd", "team/sql v2: \u00e9"}
        assert (await chat(gateway, "team/sql v2: \u00e9")).status_code == 200
        assert (await gateway.http.get("/v1/models/team/sql v2: \u00e9")).json()["parent"] == "odd"
    await triton.stop()


async def test_a_model_has_its_name_before_an_adapter() -> None:
    sql = ScriptedModel("sql", (Say("the model", "stop"),))
    aside = ScriptedModel("aside", (Say("another", "stop"),), parameters={"adapters": '["sql"]'})
    first = await FakeTriton([LLAMA, aside]).start()
    second = await FakeTriton([sql]).start()
    async with run_gateway(first.url, second.url, discovery_interval=0.1) as gateway:
        for _ in range(4):
            assert "the model" in (await chat(gateway, "sql")).text
        listed = (await gateway.http.get("/v1/models")).json()["data"]
        assert {m["id"]: m["parent"] for m in listed} == {"aside": None, "llama-8b": None, "sql": None}
        second.loaded.discard("sql")
        async with asyncio.timeout(5):
            while "another" not in (await chat(gateway, "sql")).text:
                await asyncio.sleep(0.1)
    await first.stop()
    await second.stop()


async def test_an_answer_that_ends_for_repetition_ends_with_stop() -> None:
    triton = await FakeTriton([ScriptedModel("loops", (Say("la la la", "repetition"),))]).start()
    async with run_gateway(triton.url) as gateway:
        answer = await chat(gateway, "loops")
        assert answer.json()["choices"][0]["finish_reason"] == "stop"
    await triton.stop()
