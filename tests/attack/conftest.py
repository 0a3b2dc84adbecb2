"""The gateways of all attacks, and the table of their results."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attack.gateways import GatewayPool
from tests.attack.runner import AttackResult, markdown_table


@pytest.fixture(scope="session")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayPool]:
    with GatewayPool(tmp_path_factory.mktemp("attack")) as running:
        yield running


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> Iterator[list[AttackResult]]:
    """Collect the results of all attacks, and write them to the file of `--attack-table` at the end."""
    results: list[AttackResult] = []
    yield results
    if file := request.config.getoption("--attack-table"):
        Path(file).write_text(markdown_table(results))
