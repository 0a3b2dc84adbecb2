"""The gateways of all attacks, and the table of what was measured."""

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
def tried(request: pytest.FixtureRequest) -> Iterator[list[AttackResult]]:
    """All that was measured, written where `--attack-table` says."""
    found: list[AttackResult] = []
    yield found
    if where := request.config.getoption("--attack-table"):
        Path(where).write_text(markdown_table(found))
