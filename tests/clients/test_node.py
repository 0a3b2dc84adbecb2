"""The official Node client."""

import re

from tests.clients.node_runner import run_node_tests
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway


async def test_the_node_client(gateway: RunningGateway, triton: FakeTriton) -> None:
    output = await run_node_tests("scripted.test.mjs", GATEWAY_URL=gateway.url)
    passed = re.search(r"pass (\d+)", output)
    assert passed is not None and int(passed[1]) >= 30, output
    # The model no longer runs the streams that the client cancelled.
    for model in ("endless", "silent"):
        await triton.cancelled_call(model, seconds=10)
    assert triton.active == 0
