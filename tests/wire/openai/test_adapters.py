"""LoRA adapters are models of their own: `/v1/models` lists them, and their requests name the adapter to the model."""

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


async def test_an_answer_that_ends_for_repetition_ends_with_stop() -> None:
    triton = await FakeTriton([ScriptedModel("loops", (Say("la la la", "repetition"),))]).start()
    async with run_gateway(triton.url) as gateway:
        answer = await chat(gateway, "loops")
        assert answer.json()["choices"][0]["finish_reason"] == "stop"
    await triton.stop()
