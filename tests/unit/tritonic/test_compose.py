"""Agreements between the compose files and the images. `docker/check` checks only the syntax."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tritonic import triton_address

ROOT = Path(__file__).parents[3]
yaml = pytest.importorskip("yaml")


COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SET_UPS = ("cpu", "gpu", "vllm", "trtllm", "replicas")
TRITONS = ("triton", "triton-gpu", "triton-vllm", "triton-trtllm")
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return dict(COMPOSE["services"])


def started(services: dict[str, Any], *profiles: str) -> set[str]:
    """The services that `docker compose up` starts with these profiles."""
    return {name for name, each in services.items() if not each.get("profiles") or {*profiles} & {*each["profiles"]}}


def test_the_repository_is_a_folder_inside_the_volume(services: dict[str, Any]) -> None:
    """A model is staged next to the repository and moved into it, so the repository must not be the mount itself."""
    (script,) = services["models"]["command"]
    (repository,) = set(re.findall(r"--repository (\S+)", script))
    for service in ("models", "triton"):
        (volume,) = (each for each in services[service]["volumes"] if each.startswith("model_repository:"))
        mount = volume.split(":")[1]
        assert Path(mount) in Path(repository).parents
    served = re.search(r"--model-repository=(\S+)", (ROOT / "docker/triton-start").read_text())
    assert served and served[1] == repository
    built = re.search(r"^CMD (.+)$", (ROOT / "docker/builder.Dockerfile").read_text(), re.MULTILINE)
    assert built and repository in json.loads(built[1])
    kinds = ["chat", "embedding", "image", "transcription", "speech"]
    assert re.findall(r"^tritonic build (\w+)", script, re.MULTILINE) == kinds


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_no_image_runs_as_root(dockerfile: Path) -> None:
    """Kubernetes' runAsNonRoot refuses a user by name."""
    users = re.findall(r"^USER (.+)$", dockerfile.read_text(), re.MULTILINE)
    user, group = users[-1].split(":")
    assert int(user) > 0 and int(group) > 0


def test_compose_and_the_chart_run_images_as_their_own_users(services: dict[str, Any]) -> None:
    users = {path.stem: re.findall(r"^USER (.+)$", path.read_text(), re.MULTILINE)[-1] for path in DOCKERFILES}
    assert services["models"]["user"] == services["keys"]["user"] == users["builder"]
    assert services["gateway"]["user"] == services["gateways"]["user"] == users["gateway"]
    assert {services[name]["user"] for name in TRITONS} == {users["triton"]}
    values = yaml.safe_load((ROOT / "deploy/chart/values.yaml").read_text())
    assert users["triton"].split(":")[0] == str(values["tritonDefaults"]["runAsUser"])
    gateway = (ROOT / "deploy/chart/templates/gateway.yaml").read_text()
    assert f'"tritonic.podSecurity" {users["gateway"].split(":")[0]} ' in gateway


def test_every_container_is_confined(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"] and "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]), name
        assert "privileged" not in service and "pid" not in service, name


def test_every_server_has_a_health_check_a_memory_limit_and_is_restarted(services: dict[str, Any]) -> None:
    for name in services.keys() - {"models", "keys"}:
        assert services[name]["healthcheck"]["test"][0] == "CMD", name
        assert services[name]["deploy"]["resources"]["limits"]["memory"], name
        assert services[name]["restart"] == "unless-stopped", name


def test_the_default_is_one_gateway_and_one_triton(services: dict[str, Any]) -> None:
    default = re.search(r"^COMPOSE_PROFILES=(.+)$", (ROOT / ".env").read_text(), re.MULTILINE)
    assert default and started(services, *default[1].split(",")) == {"models", "triton", "gateway"}


@pytest.mark.parametrize("profile", SET_UPS)
def test_a_set_up_has_one_triton_under_the_name_that_gateways_ask(services: dict[str, Any], profile: str) -> None:
    names = started(services, profile)
    (triton,) = names & {*TRITONS}
    assert services[triton]["networks"] == {"inner": {"aliases": ["triton"]}}
    (gateway,) = names & {"gateway", "gateways"}
    assert services[gateway]["environment"]["TRITONIC_TRITON_URLS"] == "triton:8001"
    for name in names:
        assert services[name].get("depends_on", {}).keys() <= names, name
    assert started(services, profile, "monitoring") - names == {"prometheus"}


def test_gateways_that_share_callers_store_nothing_themselves(services: dict[str, Any]) -> None:
    (script,) = services["gateways"]["command"]
    assert "export TRITONIC_FILES_KEY TRITONIC_TASKS\n" in script
    assert {"TRITONIC_FILES", "TRITONIC_RATE_LIMITS_STORE"} <= services["gateways"]["environment"].keys()
    assert not [each for each in services["gateways"]["volumes"] if "/state" in each]
    first, last = map(int, re.findall(r"TRITONIC_PORTS:-(\d+)-(\d+)", services["gateways"]["ports"][0])[0])
    assert last - first + 1 == services["gateways"]["deploy"]["replicas"] > 1


def test_keys_are_made_once_and_read_by_each_gateway(services: dict[str, Any], tmp_path: Path) -> None:
    (make,) = services["keys"]["command"]
    make = make.replace("$$", "$").replace("/secret", str(tmp_path)).replace("python ", f"{sys.executable} ")
    made = set()
    for _ in range(2):
        subprocess.run(["sh", "-ec", make], check=True)
        made.add(tuple((tmp_path / name).read_text() for name in ("files", "postgres")))
    ((files, password),) = made
    assert files != password and len(password) == 44
    (script,) = services["gateways"]["command"]
    script = script.replace("$$", "$").replace("/secret", str(tmp_path))
    command = script.replace("tritonic serve", "printenv TRITONIC_FILES_KEY TRITONIC_TASKS")
    env = os.environ | {"TRITONIC_TRITON_SECRET": "given"}
    printed = subprocess.run(["sh", "-ec", command], env=env, capture_output=True, text=True, check=True).stdout
    assert printed == f"{files}postgresql://tritonic:{password.strip()}@postgres/tritonic\n"
    (tmp_path / "files").unlink()
    assert subprocess.run(["sh", "-ec", command], env=env, capture_output=True).returncode != 0


def test_no_store_can_be_reached_from_outside(services: dict[str, Any]) -> None:
    for name in ("postgres", "valkey"):
        assert services[name]["networks"] == ["stores"] and "ports" not in services[name]
    assert all(COMPOSE["networks"][name] == {"internal": True} for name in ("inner", "stores"))


def test_every_published_port_is_on_loopback_by_default(services: dict[str, Any]) -> None:
    published = [port for each in services.values() for port in each.get("ports", [])]
    assert published and all(port.startswith("${TRITONIC_BIND:-127.0.0.1}:") for port in published)


def test_every_service_starts_after_what_it_needs(services: dict[str, Any]) -> None:
    """A gateway does not wait for Triton: it answers 503 meanwhile, and outlives each of its restarts."""
    after_models = {"models": {"condition": "service_completed_successfully"}}
    assert all(services[name]["depends_on"] == after_models for name in (*TRITONS, "gateway", "keys"))
    conditions = {name: each["condition"] for name, each in services["gateways"]["depends_on"].items()}
    assert conditions == {
        "keys": "service_completed_successfully",
        "postgres": "service_healthy",
        "valkey": "service_healthy",
    }


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_what_a_dockerfile_copies_is_in_the_build_context(dockerfile: Path) -> None:
    context = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copies = re.findall(r"^COPY ((?!--from).+)$", dockerfile.read_text(), re.MULTILINE)
    assert copies
    for source in (source for copy in copies for source in copy.split()[:-1]):
        assert source in context and (ROOT / source).exists(), source


def test_triton_and_the_gateway_read_the_secret_of_the_models_service(services: dict[str, Any], tmp_path: Path) -> None:
    for service in ("models", "triton", "gateway"):
        assert [each for each in services[service]["volumes"] if each.split(":")[1] == "/secret"]
    (script,) = services["models"]["command"]
    (make,) = (line for line in script.splitlines() if "/secret/triton" in line)
    for _ in range(2):  # a second run of the service keeps the secret
        command = make.replace("/secret", str(tmp_path)).replace("python ", f"{sys.executable} ")  # Debian has python3
        subprocess.run(["sh", "-ec", command], check=True)
        made = (tmp_path / "triton").read_text()
    assert re.fullmatch(r"[\w-]{43}\n", made)
    (script,) = services["gateway"]["command"]
    script = script.replace("$$", "$").replace("/secret", str(tmp_path))
    for given in ("", "given"):
        command = script.replace("tritonic serve", "printenv TRITONIC_TRITON_SECRET")
        env = os.environ | {"TRITONIC_TRITON_SECRET": given}
        ran = subprocess.run(["sh", "-ec", command], env=env, capture_output=True, text=True, check=True)
        assert ran.stdout == (f"{given}\n" if given else made)
        assert options(tmp_path, given)[-1].endswith(f":tritonic={given or made.strip()}")


def options(folder: Path, secret: str) -> list[str]:
    """Return the options that the container's command passes to Triton."""
    (folder / "tritonserver").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (folder / "tritonserver").chmod(0o755)
    env = os.environ | {"TRITONIC_TRITON_SECRET": secret, "TRITON_SECRET_FILE": str(folder / "triton")}
    env["PATH"] = f"{folder}:{env['PATH']}"
    return subprocess.run(
        [ROOT / "docker/triton-start"], env=env, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_triton_has_the_same_restrictions_in_its_container(services: dict[str, Any], tmp_path: Path) -> None:
    container_options = options(tmp_path, "s")
    local_options = triton_address.server_options("0.0.0.0", None, 8001, 8002, "s")
    assert {each for each in local_options if not re.match("--(grpc|metrics)-(address|port)", each)} <= set(
        container_options
    )
    assert not [name for name in TRITONS if "ports" in services[name]]
    assert "inner" in services["gateway"]["networks"]


def test_triton_without_a_secret_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        options(tmp_path, "")
    assert failed.value.stderr.startswith("Triton needs a secret: set TRITONIC_TRITON_SECRET")
