"""One scripted Triton and one gateway for each set of settings, shared by all tests, all on one loop."""

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
import uvloop

from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.scripted_models import SCRIPTED_MODELS

KEYS = ["sk-first", "sk-second"]
ORIGIN = "https://app.example"
MAX_BODY_BYTES = 64 * 1024
TIMEOUT_SECONDS = 0.8

_session = pytest_asyncio.fixture(scope="session", loop_scope="session")


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable]:
    """The loop that the gateway runs on in production."""
    return {"uvloop": uvloop.new_event_loop}


@_session
async def triton() -> AsyncIterator[FakeTriton]:
    fake = await FakeTriton(SCRIPTED_MODELS).start()
    yield fake
    await fake.stop()


@_session
async def gateway(triton: FakeTriton, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    """Default settings, but for other names of a model."""
    aliases = {"dall-e-3": "shapes", "SuperImage": "shapes", "gpt-image-1": "shapes"}
    async with run_gateway(triton.url, state=tmp_path_factory.mktemp("state"), model_aliases=aliases) as running:
        yield running


@_session
async def guarded(triton: FakeTriton) -> AsyncIterator[RunningGateway]:
    """Keys and one CORS origin."""
    async with run_gateway(triton.url, api_keys=KEYS, cors_origins=[ORIGIN], project="DecentralGPT") as running:
        yield running


@_session
async def narrow(triton: FakeTriton) -> AsyncIterator[RunningGateway]:
    """Small bodies, little patience with silent models, and an address of its own."""
    limits = {"max_body_bytes": MAX_BODY_BYTES, "request_timeout": TIMEOUT_SECONDS, "body_timeout": TIMEOUT_SECONDS}
    async with run_gateway(triton.url, **limits, public_url="https://api.example/") as running:
        yield running
