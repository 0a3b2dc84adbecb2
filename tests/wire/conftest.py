"""Fixtures: a scripted Triton, and one gateway for each set of settings. All tests share them, on one event loop."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
import uvloop

from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.scripted_models import SCRIPTED_MODELS

KEYS = ["sk-first", "sk-second"]
ORIGIN = "https://app.example"
MAX_BODY_BYTES = 64 * 1024
"""Body limit of the gateway `narrow`, in bytes."""
TIMEOUT_SECONDS = 0.8
"""Timeout of models and of bodies of the gateway `narrow`, in seconds."""

_session = pytest_asyncio.fixture(scope="session", loop_scope="session")


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable]:
    """Run tests on the event loop that the gateway has in production."""
    return {"uvloop": uvloop.new_event_loop}


@_session
async def triton() -> AsyncIterator[FakeTriton]:
    fake = await FakeTriton(SCRIPTED_MODELS).start()
    yield fake
    await fake.stop()


@_session
async def gateway(triton: FakeTriton, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    """A gateway with default settings, and aliases of a model."""
    aliases = {"dall-e-3": "shapes", "SuperImage": "shapes", "gpt-image-1": "shapes"}
    async with run_gateway(triton.url, state=tmp_path_factory.mktemp("state"), model_aliases=aliases) as running:
        yield running


@_session
async def guarded(triton: FakeTriton) -> AsyncIterator[RunningGateway]:
    """A gateway with API keys and one CORS origin."""
    async with run_gateway(triton.url, api_keys=KEYS, cors_origins=[ORIGIN], project="DecentralGPT") as running:
        yield running


@_session
async def narrow(triton: FakeTriton) -> AsyncIterator[RunningGateway]:
    """A gateway with a small body limit, short timeouts, and a public URL."""
    limits: dict[str, Any] = {
        "max_body_bytes": MAX_BODY_BYTES,
        "request_timeout": TIMEOUT_SECONDS,
        "body_timeout": TIMEOUT_SECONDS,
    }
    async with run_gateway(triton.url, **limits, public_url="https://api.example/") as running:
        yield running
