"""The three images, built and run as docker-compose.yml says, on stand-in bases and in the network of the host.

The tests run in the order of this file: the last ones stop and replace containers.
"""

import base64
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.containers.engine import Deployment, Engine, wait_until

pytestmark = pytest.mark.containers

TASKS = 40
MAX_IDLE_BYTES = 90 * 2**20
NUMBERS = {"gateway": 10001, "triton": 1000}
"""User and group of each service."""


def post(deployment: Deployment, path: str, body: dict[str, Any], **headers: str) -> Any:
    answer = httpx.post(f"{deployment.url}{path}", json=body, timeout=120, trust_env=False, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def chat(deployment: Deployment) -> str:
    message = {"role": "user", "content": "Say hello."}
    body = {"model": "smollm2-135m-instruct", "messages": [message], "max_tokens": 8, "temperature": 0}
    return str(post(deployment, "/v1/chat/completions", body)["choices"][0]["message"]["content"])


def submit_tasks(deployment: Deployment, prefix: str) -> list[str]:
    """Submit `TASKS` image tasks, and return their ids."""
    ids = []
    for number in range(TASKS):
        body = {"model": "shapes", "prompt": "a red circle", "n": 4, "async": True}
        task = post(deployment, "/tritonic/v1/images/generations", body, **{"Idempotency-Key": f"{prefix}-{number}"})
        ids.append(str(task["id"]))
    assert len(set(ids)) == TASKS
    return ids


def read_task(deployment: Deployment, id: str) -> dict[str, Any]:
    answer = httpx.get(f"{deployment.url}/tritonic/v1/images/{id}?detail=true", timeout=30, trust_env=False)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def states(deployment: Deployment, ids: list[str]) -> list[str]:
    return [read_task(deployment, id)["status"] for id in ids]


def check_completed(deployment: Deployment, ids: list[str]) -> None:
    """Wait for the end of tasks, and check that each has all its images."""
    final = {"completed", "failed", "cancelled"}
    wait_until(lambda: final.issuperset(states(deployment, ids)), 600, "the tasks do not end")
    for id in ids:
        task = read_task(deployment, id)
        assert task["status"] == "completed", task
        files = [each["url"] for each in task["detail"]["data"]]
        assert len(files) == 4
        assert httpx.get(files[0], timeout=30, trust_env=False).content.startswith(b"\x89PNG")


def test_all_services_become_healthy(deployment: Deployment) -> None:
    deployment.wait_healthy("triton", 300)
    deployment.wait_healthy("gateway", 60)
    models = httpx.get(f"{deployment.url}/v1/models", trust_env=False).json()["data"]
    assert {"smollm2-135m-instruct", "all-minilm-l6-v2", "shapes"} <= {model["id"] for model in models}


def test_chats_embeddings_and_images_are_served(deployment: Deployment) -> None:
    assert chat(deployment).strip()
    body = {"model": "all-minilm-l6-v2", "input": ["a cat", "a dog"]}
    vectors = [each["embedding"] for each in post(deployment, "/v1/embeddings", body)["data"]]
    assert [len(vector) for vector in vectors] == [384, 384] and vectors[0] != vectors[1]
    body = {"model": "shapes", "prompt": "a red circle", "response_format": "b64_json"}
    image = post(deployment, "/v1/images/generations", body)["data"][0]["b64_json"]
    assert base64.b64decode(image).startswith(b"\x89PNG")


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


@pytest.mark.parametrize("service", ["gateway", "triton"])
def test_an_image_lists_its_packages_and_licences(deployment: Deployment, engine: Engine, service: str) -> None:
    container = deployment.container(service)
    licences = json.loads(engine.execute(container, "cat", "/usr/share/tritonic/licences.json"))
    assert all(each["License"] and each["Version"] for each in licences)
    bill = json.loads(engine.execute(container, "cat", "/usr/share/tritonic/sbom.json"))
    names = {each["name"] for each in bill["components"]}
    assert {"gateway": "fastapi", "triton": "onnxruntime"}[service] in names and "libc6" in names
    libraries = [part["name"] for each in bill["components"] for part in each.get("components", [])]
    assert not [name for name in libraries if name.startswith(("libx264", "libx265"))]


def test_an_idle_gateway_takes_little_memory(deployment: Deployment) -> None:
    deployment.compose("restart", "gateway")
    deployment.wait_ready(120)
    time.sleep(30)
    used = deployment.memory_bytes("gateway")
    sys.stdout.write(f"the idle gateway takes {used / 2**20:.1f} MiB\n")
    assert used <= MAX_IDLE_BYTES


def test_a_killed_triton_is_started_again_and_no_gateway_restarts(deployment: Deployment, engine: Engine) -> None:
    gateway = engine.inspect(deployment.container("gateway"))["State"]["StartedAt"]
    triton = deployment.container("triton")
    before = engine.inspect(triton)["RestartCount"]
    (pid,) = (pid for pid, command in deployment.processes("triton").items() if command.startswith("tritonserver"))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not deployment.ready(), 30, "the gateway does not notice that Triton is gone")
    assert httpx.get(f"{deployment.url}/health/live", trust_env=False).status_code == 200
    seconds = wait_until(deployment.ready, 300, "Triton does not serve again")
    sys.stdout.write(f"Triton served again {seconds:.0f} s after the gateway noticed its end\n")
    assert engine.inspect(triton)["RestartCount"] == before + 1
    assert engine.inspect(deployment.container("gateway"))["State"]["StartedAt"] == gateway
    assert chat(deployment).strip()


def test_an_upgrade_in_place_loses_no_task(deployment: Deployment, engine: Engine) -> None:
    """Another image of the gateway replaces the running one while its tasks run."""
    old = engine.inspect(deployment.container("gateway"))
    name = old["Config"]["Image"]
    upgraded = f"{name.rpartition(':')[0]}:upgraded"
    engine.run("build", "--network", "host", "--tag", upgraded, "-", input=f"FROM {name}\nLABEL upgraded=yes\n")
    ids = submit_tasks(deployment, "upgrade")
    wait_until(lambda: "in_progress" in states(deployment, ids), 60, "no task runs")
    assert states(deployment, ids)[-1] != "completed", "the tasks ended before the upgrade"
    deployment.environment["TRITONIC_VERSION"] = "upgraded"
    deployment.up("--no-deps", "gateway")
    new = engine.inspect(deployment.container("gateway"))
    assert new["Id"] != old["Id"] and new["Config"]["Labels"]["upgraded"] == "yes"
    deployment.wait_ready(120)
    assert not {*states(deployment, ids)} & {"failed", "cancelled"}
    check_completed(deployment, ids)
    del deployment.environment["TRITONIC_VERSION"]


def test_down_and_up_lose_no_task_and_no_file(deployment: Deployment) -> None:
    ids = submit_tasks(deployment, "down")
    wait_until(lambda: "in_progress" in states(deployment, ids), 60, "no task runs")
    assert states(deployment, ids)[-1] != "completed", "the tasks ended before the stop"
    started = time.monotonic()
    deployment.compose("down")
    sys.stdout.write(f"down took {time.monotonic() - started:.0f} s\n")
    assert not deployment.ready()
    deployment.up()
    deployment.wait_ready(600)
    check_completed(deployment, ids)
