"""Fixtures: a scripted Triton, a Postgres cluster, and databases of both kinds."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

from tests.fakes.triton import FakeTriton
from tests.tasks.harness import IMAGE_MODELS
from tests.tasks.postgres import INSTALL_HINT, Postgres, find_binaries
from tests.tasks.postgres import run_postgres as running_postgres


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable]:
    """Run tests on the event loop of production."""
    return {"uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture
async def triton() -> AsyncIterator[FakeTriton]:
    fake = await FakeTriton(IMAGE_MODELS).start()
    yield fake
    await fake.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    tools = find_binaries()
    if tools is None:
        pytest.skip(f"there is no Postgres: {INSTALL_HINT}")
    with running_postgres(tools) as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'tasks.sqlite'}"
    cluster: Postgres = request.getfixturevalue("postgres")
    return cluster.url(f"tasks_{uuid.uuid4().hex}")
