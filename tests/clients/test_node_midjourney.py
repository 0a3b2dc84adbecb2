"""The npm package uniai, unchanged, and the Midjourney routes."""

import re
from pathlib import Path

from tests.clients.node_runner import run_node_tests
from tests.wire.midjourney.requests import drawn, run_drawing


async def test_uniai_draws_pictures(tmp_path: Path) -> None:
    async with run_drawing(tmp_path) as (_, gateway):
        await drawn(gateway)  # the first task creates the database
        output = await run_node_tests("midjourney.test.mjs", folder=tmp_path, GATEWAY_URL=gateway.url)
    passed = re.search(r"pass (\d+)", output)
    assert passed is not None and int(passed[1]) == 3, output
