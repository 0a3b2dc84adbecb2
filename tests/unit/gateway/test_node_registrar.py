"""Registration of models at a node that enforces its rules, with a scripted catalog."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import decentralgpt as node_module
from gateway.decentralgpt import NodeRegistrar, api_base
from gateway.settings import Settings
from tests.fakes.decentralgpt_node import ComputingNode

CHATS, DRAWS, EDITS = "/v1/chat/completions", "/v1/images/generations", "/v1/images/edits"


class Models:
    """A catalog as far as the registration looks at it."""

    def __init__(self, **operations: set[str]) -> None:
        self.operations = operations

    def models(self) -> list[Any]:
        return [SimpleNamespace(name=name, operations=frozenset(of)) for name, of in self.operations.items()]


@pytest.fixture
async def network() -> AsyncIterator[ComputingNode]:
    node = await ComputingNode().start()
    yield node
    await node.stop()


@contextlib.asynccontextmanager
async def registrar(network: ComputingNode, models: Models, **settings: Any) -> AsyncIterator[NodeRegistrar]:
    options = {"node_url": network.url, "cid": "d15c4007271b", "discovery_interval": 0.02, **settings}
    node = NodeRegistrar(Settings(**options), models)  # type: ignore[arg-type]
    task = asyncio.create_task(node.run())
    try:
        yield node
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await node.unregister_all()


def has_models(*names: str) -> Callable[[ComputingNode], bool]:
    return lambda network: set(network.models()) == set(names)


async def test_each_model_is_registered_by_what_it_offers(network: ComputingNode) -> None:
    models = Models(
        llama={"chat", "complete"},
        shapes={"generate_image", "edit_image"},
        retouch={"edit_image"},
        base={"complete"},
        vectors={"embed"},
        ears={"transcribe"},
    )
    async with registrar(network, models, project="DecentralGPT", port=1042):
        await network.until(has_models("llama", "shapes", "retouch"))
        assert network.models() == {"llama": (0, CHATS), "shapes": (1, DRAWS), "retouch": (2, EDITS)}
        assert network.registered["DecentralGPT", "llama", "d15c4007271b"] == {
            "project": "DecentralGPT",
            "model": "llama",
            "api": "http://127.0.0.1:1042/v1/chat/completions",
            "type": 0,
            "cid": "d15c4007271b",
        }
    assert network.registered == {}


async def test_changes_of_models_are_registered(network: ComputingNode) -> None:
    models = Models(a={"chat"}, b={"chat"})
    async with registrar(network, models):
        await network.until(has_models("a", "b"))
        models.operations = {"b": {"generate_image"}, "c": {"chat"}}
        await network.until(lambda n: n.models() == {"b": (1, DRAWS), "c": (0, CHATS)})
        calls = len(network.calls)
        await asyncio.sleep(0.1)
        assert len(network.calls) == calls, "nothing changed, and the node was called"


async def test_models_that_the_node_forgot_are_registered_again(network: ComputingNode) -> None:
    async with registrar(network, Models(a={"chat"}), node_interval=0.1):
        await network.until(has_models("a"))
        network.registered.clear()
        await network.until(has_models("a"))


async def test_registrations_left_by_a_killed_gateway_are_removed(network: ComputingNode) -> None:
    """Of this gateway alone: not what others of the same project or cid registered at other addresses."""
    mine: dict[str, Any] = {
        "project": "Tritonic",
        "cid": "d15c4007271b",
        "api": f"http://127.0.0.1:1088{CHATS}",
        "type": 0,
    }
    others = [{"project": "Other"}, {"cid": "another"}, {"api": f"http://127.0.0.1:10880{CHATS}"}]
    for number, change in enumerate([{}, *others]):
        registration = {**mine, "model": f"old-{number}", **change}
        network.registered[registration["project"], registration["model"], registration["cid"]] = registration
    async with registrar(network, Models(a={"chat"})):
        await network.until(has_models("a", "old-1", "old-2", "old-3"))
    assert has_models("old-1", "old-2", "old-3")(network)


async def test_an_unreachable_node_is_retried_with_backoff(
    network: ComputingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    await network.stop()
    waited, sleep = [], asyncio.sleep

    async def noted(seconds: float) -> None:
        waited.append(seconds)
        await sleep(0.01)

    # Of the node's module alone: other code sleeps, too.
    monkeypatch.setattr(node_module, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": noted}))
    async with registrar(network, Models(a={"chat"})):
        while len(waited) < 9:
            await sleep(0.01)
        assert waited[:9] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        await network.start()
        while "a" not in network.models():
            await sleep(0.01)
        del waited[:]
        while not waited:
            await sleep(0.01)
        assert waited[0] == 0.02


@pytest.mark.parametrize("failure", ["failing", "foreign"])
async def test_a_failing_node_is_retried(network: ComputingNode, failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "_MAX_BACKOFF_SECONDS", 0.02)
    setattr(network, failure, True)
    async with registrar(network, Models(a={"chat"})):
        await asyncio.sleep(0.1)
        assert network.models() == {}
        setattr(network, failure, False)
        await network.until(has_models("a"))


async def test_a_hanging_node_does_not_block_the_shutdown(
    network: ComputingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "_CALL_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(node_module, "_MAX_BACKOFF_SECONDS", 0.02)
    monkeypatch.setattr(node_module, "_SHUTDOWN_TIMEOUT_SECONDS", 0.2)
    network.frozen = True
    async with asyncio.timeout(30), registrar(network, Models(a={"chat"})):
        await asyncio.sleep(0.2)
    network.frozen = False


async def test_uncertain_registrations_are_removed_at_shutdown(
    network: ComputingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node registers, and the gateway never hears of it."""
    monkeypatch.setattr(node_module, "_CALL_TIMEOUT_SECONDS", 0.05)
    async with registrar(network, Models(a={"chat"})):
        network.frozen = True
        await asyncio.sleep(0.3)
        network.frozen = False
    assert [verb for verb, _ in network.calls][-1] == "unregister"
    assert network.registered == {}


async def test_one_refused_model_does_not_block_others(
    network: ComputingNode, caplog: pytest.LogCaptureFixture
) -> None:
    models = Models(**{"": {"chat"}, "b": {"chat"}})
    async with registrar(network, models):
        await network.until(has_models("b"))


async def test_other_gateways_models_stay(network: ComputingNode) -> None:
    async with registrar(network, Models(a={"chat"}), cid="first"):
        async with registrar(network, Models(a={"chat"}), cid="second"):
            await network.until(lambda n: len(n.registered) == 2)
        assert list(network.registered) == [("Tritonic", "a", "first")]


async def test_the_cid_is_by_default_the_name_of_the_host(network: ComputingNode) -> None:
    async with registrar(network, Models(a={"chat"}), cid=None):
        await network.until(has_models("a"))
        assert network.calls[0][1]["cid"] == socket.gethostname()


@pytest.mark.parametrize(
    ("settings", "base"),
    [
        ({}, "http://127.0.0.1:1088"),
        ({"host": "0.0.0.0", "port": 8080}, "http://127.0.0.1:8080"),
        ({"host": "::"}, "http://[::1]:1088"),
        ({"host": "localhost"}, "http://localhost:1088"),
        ({"host": "10.0.0.7"}, "http://10.0.0.7:1088"),
        ({"node_api_url": "http://127.0.0.1:9999/"}, "http://127.0.0.1:9999"),
        ({"node_api_url": "http://localhost:1088/secret"}, "http://localhost:1088/secret"),
    ],
)
def test_the_registered_url_of_the_gateway(settings: dict[str, Any], base: str) -> None:
    assert api_base(Settings(node_url="http://127.0.0.1:6000", **settings)) == base


@pytest.mark.parametrize(
    "settings",
    [
        {"node_url": "127.0.0.1:6000"},
        {"node_url": "http://127.0.0.1:6000/api/v0"},
        {"node_api_url": "http://gateway:1088"},
        {"node_api_url": "ftp://127.0.0.1"},
        {"node_api_url": "http://127.0.0.1:1088?key=1"},
        {"node_url": "http://127.0.0.1:6000", "port": 0},
        {"cid": ""},
    ],
)
def test_invalid_node_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings)) if "port" not in settings else "node_api_url"):
        Settings(**settings)
