"""The chart's gateway and Triton, and a Postgres, as pods of podman. The test asks the probes of the manifests itself.

Podman knows no Services, no StatefulSets, no `fsGroup` and no probes of this kind: pods.py says what stands for them.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.containers.calls import check_completed, check_everything_is_served, submit_tasks_that_run
from tests.containers.conftest import ROOT
from tests.containers.engine import PROJECT, wait_until
from tests.containers.pods import VOLUMES, Podman, make_volumes, of_kind, pod_of, probe_succeeds
from tests.deploy.helm import find_helm, render

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(find_helm() is None, reason="helm is not installed: `make chart` fetches it"),
]

IMAGES = Path("/var/lib/containers/images.tar")
MODELS = Path(f"/var/lib/containers/docker/volumes/{PROJECT}_model_repository/_data")
GATEWAY, TRITON, POSTGRES = "10.88.0.11", "10.88.0.12", "10.88.0.13"
"""Addresses of pods in podman's default network."""
_IMAGE = '{{"repository": "localhost/tritonic-{}", "pullPolicy": "Never"}}'
_POSTGRES = """
apiVersion: v1
kind: Pod
metadata: {name: postgres}
spec:
  securityContext: {runAsUser: 999, runAsGroup: 999}
  containers:
    - name: postgres
      image: IMAGE
      imagePullPolicy: Never
      env:
        - {name: POSTGRES_USER, value: tritonic}
        - {name: POSTGRES_PASSWORD, value: a-password}
        - {name: POSTGRES_DB, value: tritonic}
"""


@dataclass(frozen=True, slots=True)
class Release:
    podman: Podman
    gateway: dict[str, Any]
    triton: dict[str, Any]
    """The containers of the manifests."""
    url: str = f"http://{GATEWAY}:1088"


def images_of_env() -> dict[str, str]:
    lines = (ROOT / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def release(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """The chart with its default values and a Postgres: the gateway runs, and its Triton does not yet."""
    podman = Podman(tmp_path_factory.mktemp("pods"))
    podman.run("pod", "rm", "--force", "--all")  # of an earlier run
    if IMAGES.exists():
        podman.run("load", "--quiet", "--input", str(IMAGES))
        IMAGES.unlink()
    manifests = render(
        settings=[
            f"gateway.image={_IMAGE.format('gateway')}",
            f"tritonDefaults.image={_IMAGE.format('triton')}",
            f"tritonDefaults.models.build.image={_IMAGE.format('builder')}",
            'postgres.url="postgresql://tritonic:a-password@postgres/tritonic"',
        ]
    )
    deployment, stateful_set = of_kind(manifests, "Deployment"), of_kind(manifests, "StatefulSet")
    secret = of_kind(manifests, "Secret")
    podman.store_secret(secret)
    triton_name = stateful_set["metadata"]["name"]
    aliases = {
        f"{triton_name}-0.{stateful_set['spec']['serviceName']}.serving.svc.cluster.local": TRITON,
        "postgres": POSTGRES,
    }
    postgres = _POSTGRES.replace("IMAGE", f"localhost/{images_of_env()['POSTGRES_IMAGE']}")
    podman.play([yaml.safe_load(postgres)], POSTGRES)
    gateway, triton = pod_of(deployment, secret, aliases), pod_of(stateful_set, secret, {})
    shutil.rmtree(VOLUMES, ignore_errors=True)
    shutil.copytree(MODELS, VOLUMES / f"models-{triton['metadata']['name']}")
    for pod in (gateway, triton):
        make_volumes(pod)
    podman.play([gateway], GATEWAY)
    triton_file = podman.folder / "triton.yaml"
    triton_file.write_text(yaml.safe_dump(triton))
    try:
        yield Release(
            podman,
            deployment["spec"]["template"]["spec"]["containers"][0],
            stateful_set["spec"]["template"]["spec"]["containers"][0],
        )
    finally:
        pods = [pod["metadata"]["name"] for pod in (gateway, triton)] + ["postgres"]
        for pod in pods:
            for container in podman.containers(pod):
                (logs / f"pod-{container}.log").write_text(podman.run("logs", container, check=False))
        podman.run("pod", "rm", "--force", *pods, check=False)


def start_triton(release: Release) -> None:
    file = release.podman.folder / "triton.yaml"
    release.podman.play([yaml.safe_load(file.read_text())], TRITON)


def wait_for_probe(container: dict[str, Any], kind: str, address: str) -> float:
    """Ask a probe until it succeeds, for as long as a kubelet would."""
    probe = container[kind]
    seconds = probe["periodSeconds"] * probe["failureThreshold"]
    return wait_until(lambda: probe_succeeds(container, kind, address), max(seconds, 60), f"{kind} does not succeed")


def test_a_gateway_without_a_triton_lives_and_is_not_ready(release: Release) -> None:
    wait_for_probe(release.gateway, "startupProbe", GATEWAY)
    assert probe_succeeds(release.gateway, "livenessProbe", GATEWAY)
    assert not probe_succeeds(release.gateway, "readinessProbe", GATEWAY)
    assert not probe_succeeds(release.triton, "startupProbe", TRITON)


def test_both_are_ready_when_triton_has_started(release: Release, record: Callable[[str, float, str], None]) -> None:
    """Its init containers find the models, and end."""
    started = time.monotonic()
    start_triton(release)
    record("pod of Triton, init containers", time.monotonic() - started, "s")
    record("pod of Triton, startup probe", wait_for_probe(release.triton, "startupProbe", TRITON), "s")
    for kind in ("readinessProbe", "livenessProbe"):
        assert probe_succeeds(release.triton, kind, TRITON)
    wait_for_probe(release.gateway, "readinessProbe", GATEWAY)


def test_pods_serve_what_the_containers_serve(release: Release) -> None:
    check_everything_is_served(release.url)


def test_tasks_are_stored_in_postgres(release: Release) -> None:
    ids = submit_tasks_that_run(release.url)
    (container,) = release.podman.containers("postgres")
    query = ["psql", "--username=tritonic", "--tuples-only", "--command", "select count(*) from dbos.workflow_status"]
    assert int(release.podman.run("exec", container, *query)) >= len(ids)
    check_completed(release.url, ids)


@pytest.mark.parametrize(("name", "user"), [("gateway", 10001), ("triton", 1000)])
def test_processes_of_a_pod_have_no_privileges(release: Release, name: str, user: int) -> None:
    pod = "release-tritonic-gateway-0" if name == "gateway" else "release-tritonic-triton-default-0"
    (container,) = (each for each in release.podman.containers(pod) if each.endswith(f"-{name}"))
    pid = release.podman.process(container)
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(user)}
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0 and status["NoNewPrivs"].strip() == "1"
    script = "touch /usr/x 2>&1 || true; touch /tmp/x && echo written"
    output = release.podman.run("exec", container, "sh", "-c", script)
    assert "Read-only file system" in output and output.endswith("written\n")


def test_a_killed_triton_fails_its_probes_until_it_is_started_again(
    release: Release, record: Callable[[str, float, str], None]
) -> None:
    (container,) = (
        each for each in release.podman.containers("release-tritonic-triton-default-0") if each.endswith("-triton")
    )
    os.kill(release.podman.process(container), signal.SIGKILL)
    wait_until(lambda: not probe_succeeds(release.gateway, "readinessProbe", GATEWAY), 30, "the gateway stays ready")
    assert probe_succeeds(release.gateway, "livenessProbe", GATEWAY)
    record("pod of Triton, killed, startup probe", wait_for_probe(release.triton, "startupProbe", TRITON), "s")
    wait_for_probe(release.gateway, "readinessProbe", GATEWAY)
    check_everything_is_served(release.url)


def test_a_gateway_ends_within_the_time_of_its_manifest(release: Release) -> None:
    (container,) = release.podman.containers("release-tritonic-gateway-0")
    command = release.gateway["lifecycle"]["preStop"]["exec"]["command"]
    started = time.monotonic()
    release.podman.run("exec", container, *command)
    release.podman.run("stop", "--time", "25", container)
    assert time.monotonic() - started < 30
    assert release.podman.inspect(container)["State"]["ExitCode"] in (0, 128 + signal.SIGTERM)
