"""The official Node client."""

import re

from tests.clients.node import node
from tests.fakes.triton import FakeTriton
from tests.wire.serving import Gateway


async def test_the_node_client(gateway: Gateway, triton: FakeTriton) -> None:
    said = await node("scripted.test.mjs", GATEWAY_URL=gateway.url)
    assert int(re.search(r"pass (\d+)", said)[1]) >= 26, said
    # What the client left has been stopped in the model.
    for model in ("endless", "silent"):
        await triton.gives_up(model, seconds=1)
    assert triton.active == 0
