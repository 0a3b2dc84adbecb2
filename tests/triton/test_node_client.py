"""The official Node client, all the way to the model."""

import pytest

from tests.clients.node import node
from tests.triton.asking import NAME
from tests.triton.engine import Engine
from tests.wire.serving import Gateway

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]


async def test_the_node_client(gateway: Gateway, engine: Engine) -> None:
    await node("real.test.mjs", seconds=280, GATEWAY_URL=gateway.url, MODEL=NAME)
    await engine.idle(NAME, seconds=5)
