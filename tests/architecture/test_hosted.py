"""What hosted CI and pre-commit run is what the Makefile and `.ci/run` run."""

import re
import tomllib
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from tests.architecture.source_tree import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOW: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
JOBS: dict[str, Any] = WORKFLOW["jobs"]


def recipe(target: str) -> list[str]:
    """The commands of a target of the Makefile."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.M)
    assert found, f"the Makefile has no target {target!r}"
    return [line.strip().replace("$(BIN)/", ".venv/bin/") for line in found[1].splitlines()]


def commands(job: str) -> list[str]:
    """What a job of the workflow runs."""
    return [step["run"] for step in JOBS[job]["steps"] if "run" in step]


def test_the_workflow_runs_what_ci_runs() -> None:
    ran = [command for job in JOBS for command in commands(job)]
    assert ran == re.findall(r"^make .*$", (ROOT / ".ci/run").read_text(), re.M)
    for command in ran:
        assert recipe(command.split()[1])
    assert set(WORKFLOW[True]) == {"push", "pull_request"}  # YAML 1.1 takes the key `on` for a truth value


def test_the_workflow_has_every_supported_python() -> None:
    takes = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    versions = [f"3.{minor}" for minor in range(50) if f"3.{minor}.99" in takes]
    for job in JOBS.values():
        assert job["strategy"]["matrix"]["python"] == versions


@pytest.mark.parametrize("name", JOBS)
def test_jobs_have_few_permissions_and_a_timeout(name: str) -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"} and "permissions" not in JOBS[name]
    assert 0 < JOBS[name]["timeout-minutes"] <= 90
    assert WORKFLOW["concurrency"]["cancel-in-progress"]
    for step in JOBS[name]["steps"]:
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/none@v0")), step
        if step.get("uses", "").startswith("actions/setup-python@"):
            assert step["with"]["cache-dependency-path"] == "constraints.txt"


def test_pre_commit_runs_what_make_check_runs_before_its_tests() -> None:
    hooks = [
        hook
        for repository in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repository["hooks"]
    ]
    static, (tests,) = recipe("check")[:-1], recipe("check")[-1:]
    assert tests.startswith("$(FAST_TESTS)")
    assert [hook["entry"] for hook in hooks] == static
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in hooks)
