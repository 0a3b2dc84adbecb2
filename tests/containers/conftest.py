"""The containers run only where tests/containers/inside.sh has started an engine (`make containers`)."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.containers.engine import Deployment, Engine
from tests.containers.host_network import Ports

ROOT = Path(__file__).parents[2]
_ENGINE = os.environ.get("TRITONIC_CONTAINERS_DOCKER")
# `make test` collects all folders; without an engine, nothing here can run.
collect_ignore = [] if _ENGINE else ["test_containers.py"]


@pytest.fixture(scope="session")
def engine() -> Engine:
    assert _ENGINE is not None
    return Engine(_ENGINE)


@pytest.fixture(scope="session")
def deployment(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The set-up `cpu`, built and running."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    folder = tmp_path_factory.mktemp("deployment")
    running = Deployment(engine, compose, Ports(gateway=18190, grpc=18191, metrics=18192), ROOT, folder)
    logs = Path(os.environ["TRITONIC_CONTAINERS_LOGS"])
    try:
        for service in ("gateway", "triton", "models"):
            running.build(service, logs / f"build-{service}.log")
        running.up()
        running.wait_ready(1800)
        yield running
    finally:
        (logs / "services.log").write_text(running.compose("logs", "--no-color", check=False))
        running.compose("down", "--volumes", check=False)
