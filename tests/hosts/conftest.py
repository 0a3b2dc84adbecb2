"""Fixtures: the hosts, with scripted Tritons, healed after each test."""

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from tests.hosts.cluster import Cluster, run_cluster
from tests.hosts.faults import FaultLog
from tests.hosts.network import missing_requirement
from tests.tasks.postgres import INSTALL_HINT, find_binaries


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable]:
    """Run tests on the event loop of production."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def tools() -> Path:
    """Return the folder of Postgres' programs. Skips where hosts cannot be made."""
    if not os.environ.get("TRITONIC_HOSTS"):
        pytest.skip("the hosts run with `make hosts` (TRITONIC_HOSTS=1)")
    if reason := missing_requirement():
        pytest.skip(reason)
    found = find_binaries()
    if found is None:
        pytest.skip(f"there is no Postgres: {INSTALL_HINT}")
    return found


@pytest.fixture(scope="session")
def folder(tools: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Return a folder that the user of Postgres can enter, unlike those of pytest. It stays after a failure."""
    folder = Path(tempfile.mkdtemp(prefix="tritonic-hosts-"))
    folder.chmod(0o711)
    yield folder
    if request.session.testsfailed:
        sys.stdout.write(f"the logs of the hosts are in {folder}\n")
    else:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def seed() -> int:
    """Return the seed of all random faults, `TRITONIC_HOSTS_SEED` or a new one."""
    return int(os.environ.get("TRITONIC_HOSTS_SEED") or random.randrange(1 << 32))


@pytest.fixture(scope="session")
def fault_log(seed: int, folder: Path) -> FaultLog:
    """Return the log of faults and figures, `TRITONIC_HOSTS_LOG` or a file in the temporary folder."""
    return FaultLog(Path(os.environ.get("TRITONIC_HOSTS_LOG") or folder / "faults.jsonl"), seed)


@pytest.fixture(scope="session")
def running_cluster(tools: Path, folder: Path) -> Iterator[Cluster]:
    with run_cluster(folder / "scripted", tools) as cluster:
        yield cluster


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    yield running_cluster
    running_cluster.network.heal_all()
