"""Registration at a DecentralGPT node, and requests that the node forwards."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.decentralgpt_node import ComputingNode
from tests.fakes.scripted_model import DrawImages, Fail, Pause, Say, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.test_message_parts import encoded_image

pytestmark = pytest.mark.asyncio(loop_scope="session")

PROJECT = "DecentralGPT"
GREETING = "\n\nHello there, how may I assist you today?"
SEED_001 = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Hello!"},
]
CAST = [
    ScriptedModel("Llama3-8B"),
    ScriptedModel("SuperImage", (DrawImages(2),), is_image_model=True),
    ScriptedModel("broken", (Fail("[engine_failed] The engine stopped."),)),
    ScriptedModel("vectors", is_embedding_model=True),
    ScriptedModel("silent", (Say("a"), Pause())),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def triton() -> AsyncIterator[FakeTriton]:
    fake = await FakeTriton(CAST).start()
    yield fake
    await fake.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node() -> AsyncIterator[ComputingNode]:
    running = await ComputingNode().start()
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(
    triton: FakeTriton, node: ComputingNode, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningGateway]:
    state: Path = tmp_path_factory.mktemp("state")
    async with run_gateway(triton.url, node_url=node.url, project=PROJECT, cid="d15c4007271b", state=state) as running:
        await node.until(lambda n: len(n.registered) == 4)
        yield running
    assert node.registered == {}, "the gateway left and did not say so"


async def test_models_are_registered_at_the_node(gateway: RunningGateway, node: ComputingNode) -> None:
    assert node.models() == {
        "Llama3-8B": (0, "/v1/chat/completions"),
        "broken": (0, "/v1/chat/completions"),
        "silent": (0, "/v1/chat/completions"),
        "SuperImage": (1, "/v1/images/generations"),
    }
    assert all(model["api"].startswith(gateway.url) for model in node.registered.values())


async def test_a_chat(gateway: RunningGateway, node: ComputingNode) -> None:
    answer = await node.chat(PROJECT, "Llama3-8B", SEED_001)
    assert (answer["code"], answer["message"]) == (0, "success")
    assert answer["choices"][0]["message"]["content"] == GREETING


async def test_a_stream_is_passed_on(gateway: RunningGateway, node: ComputingNode) -> None:
    answer = await node.chat(PROJECT, "Llama3-8B", SEED_001, stream=True)
    assert isinstance(answer, bytes) and answer.endswith(b"data: [DONE]\n\n")
    lines = [line.removeprefix(b"data: ") for line in answer.split(b"\n\n") if line][:-1]
    chunks = [json.loads(line)["choices"][0] for line in lines]
    assert "".join(chunk["delta"].get("content", "") for chunk in chunks) == GREETING


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_has_a_code(gateway: RunningGateway, node: ComputingNode, stream: bool) -> None:
    """The node checks only these fields, and ignores the status."""
    assert (await node.chat(PROJECT, "broken", SEED_001, stream=stream))["code"] == 1007


async def test_an_image_generation(gateway: RunningGateway, node: ComputingNode, triton: FakeTriton) -> None:
    answer = await node.draw(PROJECT, "SuperImage", "A cute baby sea otter")
    assert (answer["code"], answer["message"], len(answer["data"])) == (0, "success", 1)
    assert (await gateway.http.get(answer["data"][0]["url"])).headers["content-type"] == "image/png"
    assert triton.calls[-1].prompt == "A cute baby sea otter"
    answer = await node.draw(PROJECT, "SuperImage", "An otter", n=2, size="128x128", response_format="b64_json")
    assert [set(picture) >= {"b64_json"} for picture in answer["data"]] == [True, True]


async def test_an_image_edit(gateway: RunningGateway, node: ComputingNode, triton: FakeTriton) -> None:
    """Nodes have one URL for a model, and also send edits there."""
    files = {"image": encoded_image(), "mask": encoded_image()}
    answer = await node.edit(PROJECT, "SuperImage", files, prompt="a beret", n="1", size="128x128")
    assert (answer["code"], len(answer["data"])) == (0, 1)
    assert triton.calls[-1].tensors["image"] == [encoded_image()] and triton.calls[-1].tensors["mask"] == [
        encoded_image()
    ]


async def test_models_that_appear_and_vanish_are_registered(
    gateway: RunningGateway, node: ComputingNode, triton: FakeTriton
) -> None:
    triton.loaded.discard("Llama3-8B")
    await node.until(lambda n: "Llama3-8B" not in n.models())
    triton.loaded.add("Llama3-8B")
    await node.until(lambda n: "Llama3-8B" in n.models())


@pytest.mark.parametrize("failure", ["failing", "frozen", "foreign", "away"])
async def test_a_failing_node_does_not_stop_the_gateway(triton: FakeTriton, failure: str) -> None:
    node = await ComputingNode().start()
    if failure == "away":
        await node.stop()
    node.failing, node.frozen, node.foreign = (failure == name for name in ("failing", "frozen", "foreign"))
    try:
        async with run_gateway(triton.url, node_url=node.url) as gateway:
            body = {"model": "Llama3-8B", "messages": SEED_001}
            for _ in range(3):
                assert (await gateway.http.post("/v1/chat/completions", json=body)).status_code == 200
                await asyncio.sleep(0.05)
            node.frozen = False
    finally:
        await node.stop()


async def test_a_gateway_with_keys_has_an_open_platform_for_the_node(triton: FakeTriton, node: ComputingNode) -> None:
    """Nodes send no keys: they use a platform without keys, with a name that nobody can guess."""
    platform = "6f1e5a0c9b7d4e3f"
    platforms: dict[str, Any] = {"tritonic": {}, platform: {"keys": []}}
    settings: dict[str, Any] = {
        "node_url": node.url,
        "node_api_url": f"http://127.0.0.1:PORT/{platform}",
        "project": "Guarded",
    }
    async with run_gateway(triton.url, api_keys=["sk-x"], platforms=platforms, **settings) as gateway:
        await node.until(lambda n: ("Guarded", "Llama3-8B") in {key[:2] for key in n.registered})
        answer = await node.chat("Guarded", "Llama3-8B", SEED_001)
        assert answer["choices"][0]["message"]["content"] == GREETING
        body = {"model": "Llama3-8B", "messages": SEED_001}
        assert (await gateway.http.post("/v1/chat/completions", json=body)).status_code == 401
