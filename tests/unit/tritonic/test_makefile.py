"""`make` before the environment exists, and the files that its linter reads."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# A stub of an interpreter: it prints its version and makes environments.
INTERPRETER = """#!/bin/bash
case "$1 $2" in
    "-m venv") /bin/mkdir -p "$3/bin"; echo "$0" > "$3/bin/python";;
    "-c import platform"*) echo {version};;
    "-c import ensurepip"*) exit {venv};;
    *) exit 9;;
esac
"""


class Checkout:
    """The Makefile in a folder of its own, on a machine that has the named interpreters and no other program."""

    def __init__(self, folder: Path, versions: dict[str, str], venv: int = 0) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        shutil.copy(ROOT / "Makefile", folder)
        for name, version in versions.items():
            path = self.bin / name
            path.write_text(INTERPRETER.format(version=version, venv=venv))
            path.chmod(0o755)

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        make = shutil.which("make")
        assert make, "these tests are run by make"
        return subprocess.run(
            [make, "--no-print-directory", ".venv/bin/python", *arguments],
            cwd=self.folder,
            env={"PATH": str(self.bin)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def chosen_python(self) -> str:
        return Path((self.folder / ".venv/bin/python").read_text().strip()).name


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [
        ({"python3": "3.11.7"}, "python3"),
        ({"python3": "3.12.0rc1", "python3.11": "3.11.2"}, "python3"),
        ({"python3": "3.13.5", "python3.12": "3.12.9", "python3.11": "3.11.2"}, "python3.12"),
        ({"python3": "3.9.2", "python3.11": "3.11.2"}, "python3.11"),
        ({"python3.12": "3.12.9"}, "python3.12"),
    ],
)
def test_the_first_suitable_interpreter_is_used(tmp_path: Path, versions: dict[str, str], chosen: str) -> None:
    checkout = Checkout(tmp_path, versions)
    ran = checkout.make()
    assert ran.returncode == 0, ran.stderr
    assert checkout.chosen_python() == chosen


@pytest.mark.parametrize(
    ("versions", "found"),
    [
        ({"python3": "3.13.5"}, "python3 is Python 3.13.5"),
        ({"python3": "3.10.4"}, "python3 is Python 3.10.4"),
        ({"python3": "3.13.5", "python3.11": "3.1.1"}, "python3 is Python 3.13.5, python3.11 is Python 3.1.1"),
        ({}, "there is no python3 python3.12 python3.11"),
    ],
)
def test_unsuitable_interpreters_are_reported_and_nothing_is_made(
    tmp_path: Path, versions: dict[str, str], found: str
) -> None:
    checkout = Checkout(tmp_path, versions)
    ran = checkout.make()
    assert ran.returncode != 0
    sentence = ran.stderr.splitlines()[0]
    assert sentence.startswith(f"Python 3.11 or 3.12 is needed, and {found}: ")
    assert "PYTHON=/path/to/python3.12" in sentence
    assert not (tmp_path / ".venv").exists()


def test_a_named_interpreter_is_the_only_candidate(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, {"python3": "3.11.7", "other": "3.12.1", "newer": "3.14.0"})
    assert checkout.make("PYTHON=newer").stderr.startswith("Python 3.11 or 3.12 is needed, and newer is Python 3.14.0:")
    assert checkout.make(f"PYTHON={tmp_path}/bin/other").returncode == 0
    assert checkout.chosen_python() == "other"


def test_a_missing_venv_module_is_reported_with_its_package(tmp_path: Path) -> None:
    ran = Checkout(tmp_path, {"python3": "3.13.5", "python3.12": "3.12.9"}, venv=1).make()
    assert ran.returncode != 0
    assert "The venv module of python3.12 is missing: apt-get install python3.12-venv" in ran.stderr
    assert not (tmp_path / ".venv").exists()


def test_files_outside_the_project_folders_are_not_linted(tmp_path: Path) -> None:
    """A user's own hello.py that breaks every rule must not fail `make check`; a file of the project must."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    project_folders = ["backends", "benchmarks", "builders", "gateway", "tests", "training", "tritonic"]
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    assert project_folders == sorted([*packages, "benchmarks", "tests", "training"])
    for folder in (".", "mine", *project_folders):
        (tmp_path / folder / "deep").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "deep" / "hello.py").write_text("import os\n")
    (tmp_path / "hello.py").write_text("import os\n")
    ran = subprocess.run(
        [Path(sys.executable).with_name("ruff"), "check", "--no-cache", "--output-format", "concise", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = sorted({line.split("/")[0] for line in ran.stdout.splitlines() if "hello.py:1:" in line})
    assert found == project_folders


def test_recipes_change_into_folders_that_exist() -> None:
    folders = re.findall(r"\bcd ([\w./-]+)", (ROOT / "Makefile").read_text())
    assert folders and all((ROOT / folder).is_dir() for folder in folders), folders
