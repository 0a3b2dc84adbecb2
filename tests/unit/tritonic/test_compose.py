"""What the compose files and the images must agree on; `docker/check` only reads their grammar."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
yaml = pytest.importorskip("yaml")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"])


def test_the_repository_is_a_folder_inside_the_volume(services: dict[str, Any]) -> None:
    """A model is staged beside the repository and moved into it: a repository that is a mount is refused."""
    (script,) = services["models"]["command"]
    (repository,) = set(re.findall(r"--repository (\S+)", script))
    for service in ("models", "triton"):
        (volume,) = services[service]["volumes"]
        mount = volume.split(":")[1]
        assert Path(mount) in Path(repository).parents
    served = re.search(r"--model-repository=([^\"]+)", (ROOT / "docker/triton.Dockerfile").read_text())
    assert served and served[1] == repository
    built = re.search(r"^CMD (.+)$", (ROOT / "docker/builder.Dockerfile").read_text(), re.MULTILINE)
    assert built and repository in json.loads(built[1])
    assert re.findall(r"^tritonic build (\w+)", script, re.MULTILINE) == ["chat", "embedding", "image"]


def test_nothing_of_ours_runs_as_root() -> None:
    for name in ("builder", "gateway", "triton"):
        users = re.findall(r"^USER (.+)$", (ROOT / f"docker/{name}.Dockerfile").read_text(), re.MULTILINE)
        assert users and users[-1] != "root", name


def test_every_service_is_healthy_before_the_next_one_starts(services: dict[str, Any]) -> None:
    assert services["triton"]["depends_on"] == {"models": {"condition": "service_completed_successfully"}}
    assert services["gateway"]["depends_on"] == {"triton": {"condition": "service_healthy"}}
    assert "healthcheck" in services["triton"] and "healthcheck" in services["gateway"]
