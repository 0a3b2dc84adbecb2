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


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"])


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
    assert re.findall(r"^tritonic build (\w+)", script, re.MULTILINE) == ["chat", "embedding", "image"]


def test_no_image_runs_as_root() -> None:
    for name in ("builder", "gateway", "triton"):
        users = re.findall(r"^USER (.+)$", (ROOT / f"docker/{name}.Dockerfile").read_text(), re.MULTILINE)
        assert users and users[-1] != "root", name


def test_every_service_is_healthy_before_the_next_one_starts(services: dict[str, Any]) -> None:
    assert services["triton"]["depends_on"] == {"models": {"condition": "service_completed_successfully"}}
    assert services["gateway"]["depends_on"] == {"triton": {"condition": "service_healthy"}}
    assert "healthcheck" in services["triton"] and "healthcheck" in services["gateway"]


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
    assert "ports" not in services["triton"]
    assert services["triton"]["networks"] == ["inner"] and "inner" in services["gateway"]["networks"]


def test_triton_without_a_secret_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        options(tmp_path, "")
    assert failed.value.stderr.startswith("Triton needs a secret: set TRITONIC_TRITON_SECRET")
