"""One scripted Triton and one gateway for each set of settings, shared by all tests, all on one loop."""

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
import uvloop

from tests.fakes.triton import FakeTriton
from tests.wire.cast import CAST
from tests.wire.serving import Gateway, serve

KEYS = ["sk-first", "sk-second"]
ORIGIN = "https://app.example"
BODY_LIMIT = 64 * 1024
PATIENCE = 0.8

_session = pytest_asyncio.fixture(scope="session", loop_scope="session")


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable]:
    """The loop that the gateway runs on in production."""
    return {"uvloop": uvloop.new_event_loop}


@_session
async def triton() -> AsyncIterator[FakeTriton]:
    fake = await FakeTriton(CAST).start()
    yield fake
    await fake.stop()


@_session
async def gateway(triton: FakeTriton, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """Default settings, but for other names of a model."""
    aliases = {"dall-e-3": "shapes", "SuperImage": "shapes", "gpt-image-1": "shapes"}
    async with serve(triton.url, state=tmp_path_factory.mktemp("state"), model_aliases=aliases) as running:
        yield running


@_session
async def guarded(triton: FakeTriton) -> AsyncIterator[Gateway]:
    """Keys and one CORS origin."""
    async with serve(triton.url, api_keys=KEYS, cors_origins=[ORIGIN], project="DecentralGPT") as running:
        yield running


@_session
async def narrow(triton: FakeTriton) -> AsyncIterator[Gateway]:
    """Small bodies, little patience with silent models, and an address of its own."""
    limits = {"max_body_bytes": BODY_LIMIT, "request_timeout": PATIENCE, "body_timeout": PATIENCE}
    async with serve(triton.url, **limits, public_url="https://api.example/") as running:
        yield running
