"""Three gateways, Postgres, Valkey, Prometheus and a Triton, as docker-compose.yml says. See test_set_ups.py."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.containers.calls import chat, check_completed, post, read_task, submit_tasks_that_run
from tests.containers.conftest import ROOT
from tests.containers.engine import Engine, wait_until
from tests.containers.set_up import MACHINE, SetUp, connects, scraped, wait_ready
from tests.fakes.s3 import FakeS3

pytestmark = pytest.mark.containers

GATEWAYS = [f"http://127.0.0.1:{port}" for port in (1088, 1089, 1090)]


@pytest.fixture(scope="module")
def replicas(
    engine: Engine, logs: Path, record: Callable[[str, float, str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SetUp]:
    """Three gateways with a rate limit, one Triton, Postgres, Valkey, Prometheus."""
    set_up = SetUp(engine, ROOT, tmp_path_factory.mktemp("replicas"), "replicas,monitoring")
    set_up.environment["TRITONIC_RATE_LIMITS"] = "120/hour"
    try:
        started = time.monotonic()
        set_up.up()
        wait_ready(GATEWAYS)
        record("three gateways in networks, from `up` until ready", time.monotonic() - started, "s")
        yield set_up
    finally:
        (logs / "replicas.log").write_text(set_up.compose("logs", "--no-color", check=False))
        set_up.compose("down", check=False)


def can_read_tasks(url: str, id: str) -> bool:
    return httpx.get(f"{url}/tritonic/v1/images/{id}", timeout=30, trust_env=False).status_code == 200


def test_several_gateways_share_tasks_and_files(replicas: SetUp) -> None:
    for service in ("gateways", "postgres", "valkey"):
        replicas.wait_healthy(service, 120)
    for url in GATEWAYS:
        assert chat(url).strip()
    ids = submit_tasks_that_run(GATEWAYS[0])
    assert read_task(GATEWAYS[1], ids[0])["id"] == ids[0]
    replicas.engine.run("kill", replicas.containers("gateways")[0])
    replicas.compose("restart", "postgres")
    replicas.up()
    wait_ready(GATEWAYS)
    wait_until(lambda: can_read_tasks(GATEWAYS[2], ids[0]), 60, "the tasks cannot be read")
    check_completed(GATEWAYS[2], ids)


def test_several_gateways_count_rates_together(replicas: SetUp) -> None:
    body = {"model": "all-minilm-l6-v2", "input": "x"}
    statuses = []
    for number in range(130):
        answer = httpx.post(f"{GATEWAYS[number % 3]}/v1/embeddings", json=body, timeout=60, trust_env=False)
        statuses.append(answer.status_code)
    assert 429 in statuses, statuses
    allowed = statuses.index(429)
    assert set(statuses[:allowed]) <= {200} and set(statuses[allowed:]) == {429}
    assert allowed < 120


@pytest.fixture
def bucket() -> Iterator[FakeS3]:
    """A bucket outside of all networks of containers, at an address of the machine."""
    loop, fake = asyncio.new_event_loop(), FakeS3(host=MACHINE)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(fake.start(), loop).result(10)
        yield fake
        asyncio.run_coroutine_threadsafe(fake.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_several_gateways_store_files_in_a_bucket(replicas: SetUp, bucket: FakeS3, logs: Path) -> None:
    (logs / "replicas-before-the-bucket.log").write_text(replicas.compose("logs", "--no-color"))
    replicas.environment |= bucket.environment() | {"TRITONIC_FILES": f"s3://{bucket.name}/produced"}
    replicas.environment["TRITONIC_RATE_LIMITS"] = ""
    replicas.up()
    wait_ready(GATEWAYS)
    body = {"model": "shapes", "prompt": "a red circle"}
    url = httpx.URL(post(GATEWAYS[0], "/v1/images/generations", body)["data"][0]["url"])
    assert [key for key in bucket.objects if key.startswith("produced/")]
    for gateway in GATEWAYS:
        image = httpx.get(f"{gateway}{url.raw_path.decode()}", timeout=30, trust_env=False)
        assert image.status_code == 200 and image.content.startswith(b"\x89PNG")


def test_stores_are_reached_by_gateways_alone(replicas: SetUp) -> None:
    (triton,), (postgres,) = replicas.containers("triton"), replicas.containers("postgres")
    address = replicas.address(postgres, "stores")
    assert replicas.reaches(replicas.containers("gateways")[0], address, 5432)
    assert not replicas.reaches(triton, address, 5432)
    assert not [port for port in (5432, 6379) if connects("127.0.0.1", port)]


@pytest.mark.parametrize("service", ["gateways", "triton", "postgres", "valkey", "prometheus"])
def test_every_service_is_confined(replicas: SetUp, service: str) -> None:
    for container in replicas.containers(service):
        settings = replicas.engine.inspect(container)
        host = settings["HostConfig"]
        assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["CapAdd"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"] and host["Memory"] > 0
        user, group = map(int, settings["Config"]["User"].split(":"))
        lines = Path(f"/proc/{settings['State']['Pid']}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert user > 0 and set(status["Uid"].split()) == {str(user)} and set(status["Gid"].split()) == {str(group)}
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0 and status["NoNewPrivs"].strip() == "1"


def test_prometheus_finds_every_gateway(replicas: SetUp) -> None:
    wait_until(lambda: scraped("gateway") == 3, 120, "Prometheus does not reach three gateways")
