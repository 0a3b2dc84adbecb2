"""The official Node client."""

import re
from collections.abc import AsyncIterator

import pytest

from tests.clients.node import node
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


async def test_the_node_client(gateway: Gateway, triton: FakeTriton) -> None:
    said = await node("scripted.test.mjs", GATEWAY_URL=gateway.url)
    assert int(re.search(r"pass (\d+)", said)[1]) >= 26, said
    # What the client left has been stopped in the model.
    for model in ("endless", "silent"):
        await triton.gives_up(model, seconds=1)
    assert triton.active == 0
