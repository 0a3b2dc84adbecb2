"""The three images, built and run as docker-compose.yml says, on stand-in bases and in the network of the host.

The tests run in the order of this file: the last ones stop and replace containers.
"""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import httpx
import pytest

from tests.containers.calls import (
    chat,
    check_completed,
    check_everything_is_served,
    outcome_of_stream,
    states,
    submit_tasks_that_run,
)
from tests.containers.engine import PROJECT, Deployment, Engine, wait_until

pytestmark = pytest.mark.containers

MAX_IDLE_BYTES = 90 * 2**20
NUMBERS = {"gateway": 10001, "triton": 1000}
"""User and group of each service."""


def test_all_services_become_healthy(deployment: Deployment) -> None:
    deployment.wait_healthy("triton", 300)
    deployment.wait_healthy("gateway", 60)
    models = httpx.get(f"{deployment.url}/v1/models", trust_env=False).json()["data"]
    assert {"smollm2-135m-instruct", "all-minilm-l6-v2", "shapes"} <= {model["id"] for model in models}


def test_chats_embeddings_and_images_are_served(deployment: Deployment) -> None:
    check_everything_is_served(deployment.url)


@pytest.mark.parametrize("service", ["gateway", "triton"])
def test_the_engine_confines_a_container(deployment: Deployment, engine: Engine, service: str) -> None:
    number = NUMBERS[service]
    settings = engine.inspect(deployment.container(service))
    host = settings["HostConfig"]
    assert host["ReadonlyRootfs"] is True and host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"] and not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert settings["Config"]["User"] == f"{number}:{number}"
    assert host["Memory"] > 0 and host["RestartPolicy"]["Name"] == "unless-stopped"
    image = json.loads(engine.run("image", "inspect", settings["Image"]))[0]
    assert image["Config"]["User"] == f"{number}:{number}"


@pytest.mark.parametrize("service", ["gateway", "triton"])
def test_processes_have_no_privileges(deployment: Deployment, engine: Engine, service: str) -> None:
    """As the kernel and the container itself see it, for each process: also the models' of Triton."""
    number = str(NUMBERS[service])
    for pid, command in deployment.processes(service).items():
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert set(status["Uid"].split()) == {number}, command
        assert set(status["Gid"].split()) == {number}, command
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[kind], 16) == 0, f"{command}: {kind} {status[kind]}"
        assert status["NoNewPrivs"].strip() == "1", command
    container = deployment.container(service)
    assert engine.execute(container, "id", "-u").strip() == number
    script = "touch /usr/x 2>&1 || true; touch /opt/x 2>&1 || true; touch /tmp/x && echo written"
    refused_twice = engine.execute(container, "sh", "-c", script)
    assert refused_twice.count("Read-only file system") == 2 and refused_twice.endswith("written\n")


def test_triton_cannot_change_its_models(deployment: Deployment, engine: Engine) -> None:
    output = engine.execute(deployment.container("triton"), "sh", "-c", "touch /models/x 2>&1 || true")
    assert "Read-only file system" in output


def record_memory(deployment: Deployment, moment: str, record: Callable[[str, float, str], None]) -> dict[str, int]:
    memory = deployment.memory("gateway")
    for kind, size in (*memory.items(), ("cgroup", deployment.cgroup_bytes("gateway"))):
        record(f"memory of the gateway, {moment}, {kind}", size / 2**20, "MiB")
    return memory


def test_an_idle_gateway_takes_little_memory(
    deployment: Deployment, engine: Engine, record: Callable[[str, float, str], None]
) -> None:
    """A minute after its start, and after a hundred requests: of a gateway that never had a task, and with a new state.

    The bar is for the largest of the figures, the resident set.
    """
    deployment.compose("rm", "--stop", "--force", "gateway")
    engine.run("volume", "rm", f"{PROJECT}_state")
    deployment.up("gateway")
    deployment.wait_ready(120)
    for moment in ("idle", "after 100 requests"):
        if moment != "idle":
            for _ in range(100):
                chat(deployment.url)
        time.sleep(60)
        assert record_memory(deployment, moment, record)["Rss"] <= MAX_IDLE_BYTES


def test_a_killed_triton_is_started_again_and_no_gateway_restarts(
    deployment: Deployment, engine: Engine, record: Callable[[str, float, str], None]
) -> None:
    gateway = engine.inspect(deployment.container("gateway"))["State"]["StartedAt"]
    triton = deployment.container("triton")
    before = engine.inspect(triton)["RestartCount"]
    (pid,) = (pid for pid, command in deployment.processes("triton").items() if command.startswith("tritonserver"))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not deployment.ready(), 30, "the gateway does not notice that Triton is gone")
    assert httpx.get(f"{deployment.url}/health/live", trust_env=False).status_code == 200
    record("from the end of Triton until ready again", wait_until(deployment.ready, 300, "Triton does not serve"), "s")
    assert engine.inspect(triton)["RestartCount"] == before + 1
    assert engine.inspect(deployment.container("gateway"))["State"]["StartedAt"] == gateway
    assert chat(deployment.url).strip()


@contextmanager
def streams(url: str) -> Iterator[Counter[str]]:
    """Three clients that stream one chat after another. The counter has all outcomes when the block ends."""
    stop, outcomes = Event(), Counter[str]()

    def call() -> list[str]:
        seen = []
        while not stop.is_set():
            seen.append(outcome_of_stream(url))
            if seen[-1] != "whole":
                time.sleep(0.1)
        return seen

    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(call) for _ in range(3)]
        try:
            yield outcomes
        finally:
            stop.set()
        for each in calls:
            outcomes.update(each.result())


def test_an_upgrade_in_place_cuts_no_stream_and_loses_no_task(
    deployment: Deployment, engine: Engine, record: Callable[[str, float, str], None]
) -> None:
    """Another image of the gateway replaces the running one while it streams and its tasks run."""
    url = deployment.url
    old = engine.inspect(deployment.container("gateway"))
    name = old["Config"]["Image"]
    upgraded = f"{name.rpartition(':')[0]}:upgraded"
    engine.run("build", "--network", "host", "--tag", upgraded, "-", input=f"FROM {name}\nLABEL upgraded=yes\n")
    ids = submit_tasks_that_run(url)
    with streams(url) as outcomes:
        time.sleep(5)
        with deployment.variables(TRITONIC_VERSION="upgraded"):
            deployment.up("--no-deps", "gateway")
            new = engine.inspect(deployment.container("gateway"))
        record("from the new container until ready", deployment.wait_ready(120), "s")
        assert not {*states(url, ids)} & {"failed", "cancelled"}
        time.sleep(5)
    assert new["Id"] != old["Id"] and new["Config"]["Labels"]["upgraded"] == "yes"
    for each, number in outcomes.items():
        record(f"streams during the upgrade, {each}", number, "")
    # Nothing listens for a moment; whoever calls then, or while no model is known yet, is told so.
    assert outcomes["whole"] > 5 and outcomes.keys() <= {"whole", "refused", "503"}
    check_completed(url, ids)


def test_down_and_up_lose_no_task_and_no_file(
    deployment: Deployment, record: Callable[[str, float, str], None]
) -> None:
    ids = submit_tasks_that_run(deployment.url)
    started = time.monotonic()
    deployment.compose("down")
    record("down", time.monotonic() - started, "s")
    assert not deployment.ready()
    started = time.monotonic()
    deployment.up()
    deployment.wait_ready(600)
    assert chat(deployment.url).strip()
    record("from `up` with models until the first answer", time.monotonic() - started, "s")
    check_completed(deployment.url, ids)
    record_memory(deployment, "after tasks", record)
