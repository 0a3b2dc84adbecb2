"""The containers run only where tests/containers/inside.sh has started an engine (`make containers`)."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.containers.engine import Deployment, Engine
from tests.containers.host_network import Ports

ROOT = Path(__file__).parents[2]
_ENGINE = os.environ.get("TRITONIC_CONTAINERS_DOCKER")
# `make test` collects all folders; without an engine, nothing here can run.
collect_ignore = [] if _ENGINE else [path.name for path in Path(__file__).parent.glob("test_*.py")]


@pytest.fixture(scope="session")
def logs() -> Path:
    return Path(os.environ["TRITONIC_CONTAINERS_LOGS"])


@pytest.fixture(scope="session")
def record(logs: Path) -> Callable[[str, float, str], None]:
    """Return a function that prints a figure (name, value, unit), and appends it to figures.jsonl of the logs."""

    def append(name: str, value: float, unit: str) -> None:
        sys.stdout.write(f"\n{name}: {value:.4g} {unit}\n")
        with (logs / "figures.jsonl").open("a") as file:
            file.write(json.dumps({"name": name, "value": round(value, 3), "unit": unit}) + "\n")

    return append


@pytest.fixture(scope="session")
def engine() -> Engine:
    assert _ENGINE is not None
    return Engine(_ENGINE)


@pytest.fixture(scope="session")
def built(
    engine: Engine, logs: Path, record: Callable[[str, float, str], None], tmp_path_factory: pytest.TempPathFactory
) -> Deployment:
    """The set-up `cpu`, built and not yet running."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    folder = tmp_path_factory.mktemp("deployment")
    deployment = Deployment(engine, compose, Ports(gateway=18190, grpc=18191, metrics=18192), ROOT, folder)
    for service in ("gateway", "triton", "models"):
        record(f"building {service}", deployment.build(service, logs / f"build-{service}.log"), "s")
    return deployment


@pytest.fixture(scope="session")
def deployment(built: Deployment, logs: Path, record: Callable[[str, float, str], None]) -> Iterator[Deployment]:
    """The set-up `cpu`, running and ready."""
    try:
        started = time.monotonic()
        built.up()
        built.wait_ready(1800)
        record("from `up` until ready, with the builds of models that are missing", time.monotonic() - started, "s")
        yield built
    finally:
        (logs / "services.log").write_text(built.compose("logs", "--no-color", check=False))
        # Volumes end with the view of this machine; in one that is kept, models are not built again.
        built.compose("down", check=False)
