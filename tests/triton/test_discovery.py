"""Models that load and unload while the gateway runs."""

import asyncio
from pathlib import Path

import pytest

from tests.triton.conftest import Loader
from tests.triton.engine_metrics import EngineMetrics
from tests.triton.model_copies import install_copy
from tests.triton.text_client import NAME, TextClient, chat, path, streamed
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.text_requests import check_error

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]


async def names(gateway: RunningGateway) -> set[str]:
    return {model["id"] for model in (await gateway.http.get("/v1/models")).json()["data"]}


async def until_listed(gateway: RunningGateway, name: str, listed: bool) -> None:
    async with asyncio.timeout(60):
        while (name in await names(gateway)) is not listed:
            await asyncio.sleep(0.02)


async def test_a_model_is_loaded_and_unloaded(
    complete: TextClient, gateway: RunningGateway, load: Loader, default_folder: Path, repository: Path
) -> None:
    name = "comes-and-goes"
    body = {**chat("What is two plus two?", max_tokens=12), "model": "org/passing"}
    check_error(await gateway.http.post(path(body), json=body), 404, code="model_not_found", param="model")
    install_copy(default_folder, repository, name, served_name="org/passing", owned_by="someone", context_length=128)
    await load(name)
    await until_listed(gateway, "org/passing", True)
    card = (await gateway.http.get("/v1/models/org/passing")).json()
    assert (card["id"], card["owned_by"]) == ("org/passing", "someone")
    assert (await complete(body)).text == (await complete({**body, "model": NAME})).text
    await load.unload(name)
    await until_listed(gateway, "org/passing", False)
    assert (await gateway.http.post(path(body), json=body)).status_code in (404, 503)
    await load.until_unloaded(name)
    async with asyncio.timeout(30):
        while (response := await gateway.http.post(path(body), json=body)).status_code == 503:
            await asyncio.sleep(0.02)
    check_error(response, 404, code="model_not_found", param="model")
    assert NAME in await names(gateway)


async def test_a_model_that_has_served_is_unloaded(
    complete: TextClient, gateway: RunningGateway, load: Loader, default_folder: Path, repository: Path
) -> None:
    """A request that Triton does not release keeps its model in the state UNLOADING."""
    name = "has-served"
    install_copy(default_folder, repository, name, context_length=128)
    await load(name)
    await until_listed(gateway, name, True)
    body = {**chat("Hi!", max_tokens=4, ignore_eos=True), "model": name}
    for _ in range(5):
        await asyncio.gather(*(complete(streamed(body) if number % 2 else body) for number in range(4)))
    await load.unload(name)
    await load.until_unloaded(name)


async def test_a_model_is_unloaded_after_its_last_response(
    complete: TextClient,
    gateway: RunningGateway,
    engine: EngineMetrics,
    load: Loader,
    default_folder: Path,
    repository: Path,
) -> None:
    """Triton unloads a model only after its last request is answered."""
    name = "leaves-early"
    install_copy(default_folder, repository, name, context_length=128)
    await load(name)
    await until_listed(gateway, name, True)
    body = {**chat("Count to twenty.", max_tokens=40, ignore_eos=True), "model": name}
    running = asyncio.ensure_future(complete(body))
    await engine.wait_until(name, lambda now: now.get("tokens_in_total", 0) > 0)
    await load.unload(name)
    await until_listed(gateway, name, False)
    completion = await running
    assert (completion.finish_reason, completion.usage["completion_tokens"]) == ("length", 40)
    await load.until_unloaded(name)
