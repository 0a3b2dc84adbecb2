"""A gateway before a scripted Triton."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.triton import FakeTriton
from tests.wire.cast import CAST
from tests.wire.serving import Gateway, serve


@pytest.fixture
async def triton() -> AsyncIterator[FakeTriton]:
    fake = await FakeTriton(CAST).start()
    yield fake
    await fake.stop()


@pytest.fixture
async def gateway(triton: FakeTriton) -> AsyncIterator[Gateway]:
    async with serve(triton.url) as running:
        yield running
