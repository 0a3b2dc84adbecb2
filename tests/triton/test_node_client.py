"""The official Node client of OpenAI with the real model."""

import pytest

from tests.clients.node_runner import run_node_tests
from tests.triton.engine_metrics import EngineMetrics
from tests.triton.text_client import NAME
from tests.wire.gateway_server import RunningGateway

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]


async def test_the_node_client(gateway: RunningGateway, engine: EngineMetrics) -> None:
    await run_node_tests("real.test.mjs", seconds=280, GATEWAY_URL=gateway.url, MODEL=NAME)
    await engine.wait_idle(NAME, seconds=5)
