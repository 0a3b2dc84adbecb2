"""The official Node client."""

import re

from tests.clients.node_runner import run_node_tests
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway


async def test_the_node_client(gateway: RunningGateway, triton: FakeTriton) -> None:
    said = await run_node_tests("scripted.test.mjs", GATEWAY_URL=gateway.url)
    assert int(re.search(r"pass (\d+)", said)[1]) >= 26, said
    # What the client left has been stopped in the model.
    for model in ("endless", "silent"):
        await triton.cancelled_call(model, seconds=1)
    assert triton.active == 0
