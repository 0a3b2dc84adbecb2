"""The gateways of all attacks, and the table of what was measured."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attack.serving import Gateways
from tests.attack.trying import Tried, table


@pytest.fixture(scope="session")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    with Gateways(tmp_path_factory.mktemp("attack")) as running:
        yield running


@pytest.fixture(scope="session")
def tried(request: pytest.FixtureRequest) -> Iterator[list[Tried]]:
    """All that was measured, written where `--attack-table` says."""
    found: list[Tried] = []
    yield found
    if where := request.config.getoption("--attack-table"):
        Path(where).write_text(table(found))
