"""A gateway before a scripted Triton."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.scripted_models import SCRIPTED_MODELS


@pytest.fixture
async def triton() -> AsyncIterator[FakeTriton]:
    fake = await FakeTriton(SCRIPTED_MODELS).start()
    yield fake
    await fake.stop()


@pytest.fixture
async def gateway(triton: FakeTriton) -> AsyncIterator[RunningGateway]:
    async with run_gateway(triton.url) as running:
        yield running
