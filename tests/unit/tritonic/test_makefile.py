"""What `make` does before there is an environment, and what its linter looks at."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# An interpreter as far as the Makefile can tell: it says its version and makes environments.
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

    def __init__(self, folder: Path, venv: int = 0, **versions: str) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        shutil.copy(ROOT / "Makefile", folder)
        for name, version in versions.items():
            path = self.bin / name.replace("_", ".")
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

    def taken(self) -> str:
        return Path((self.folder / ".venv/bin/python").read_text().strip()).name


@pytest.mark.parametrize(
    ("versions", "taken"),
    [
        ({"python3": "3.11.7"}, "python3"),
        ({"python3": "3.12.0rc1", "python3_11": "3.11.2"}, "python3"),
        ({"python3": "3.13.5", "python3_12": "3.12.9", "python3_11": "3.11.2"}, "python3.12"),
        ({"python3": "3.9.2", "python3_11": "3.11.2"}, "python3.11"),
        ({"python3_12": "3.12.9"}, "python3.12"),
    ],
)
def test_an_interpreter_that_suits_is_found(tmp_path: Path, versions: dict[str, str], taken: str) -> None:
    checkout = Checkout(tmp_path, **versions)
    ran = checkout.make()
    assert ran.returncode == 0, ran.stderr
    assert checkout.taken() == taken


@pytest.mark.parametrize(
    ("versions", "found"),
    [
        ({"python3": "3.13.5"}, "python3 is Python 3.13.5"),
        ({"python3": "3.10.4"}, "python3 is Python 3.10.4"),
        ({"python3": "3.13.5", "python3_11": "3.1.1"}, "python3 is Python 3.13.5, python3.11 is Python 3.1.1"),
        ({}, "there is no python3 python3.12 python3.11"),
    ],
)
def test_otherwise_one_sentence_says_what_was_found_and_nothing_is_made(
    tmp_path: Path, versions: dict[str, str], found: str
) -> None:
    checkout = Checkout(tmp_path, **versions)
    ran = checkout.make()
    assert ran.returncode != 0
    sentence = ran.stderr.splitlines()[0]
    assert sentence.startswith(f"Python 3.11 or 3.12 is needed, and {found}: ")
    assert "PYTHON=/path/to/python3.12" in sentence
    assert not (tmp_path / ".venv").exists()


def test_the_interpreter_that_is_named_is_the_only_one_looked_at(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, python3="3.11.7", other="3.12.1", newer="3.14.0")
    assert checkout.make("PYTHON=newer").stderr.startswith("Python 3.11 or 3.12 is needed, and newer is Python 3.14.0:")
    assert checkout.make(f"PYTHON={tmp_path}/bin/other").returncode == 0
    assert checkout.taken() == "other"


def test_a_python_without_venv_comes_with_its_package(tmp_path: Path) -> None:
    ran = Checkout(tmp_path, venv=1, python3="3.13.5", python3_12="3.12.9").make()
    assert ran.returncode != 0
    assert "The venv module of python3.12 is missing: apt-get install python3.12-venv" in ran.stderr
    assert not (tmp_path / ".venv").exists()


def test_what_lies_beside_the_project_is_not_linted(tmp_path: Path) -> None:
    """Somebody's own hello.py, which breaks every rule, must not break `make check`; a file of the project's must."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    own = ["backends", "benchmarks", "builders", "gateway", "tests", "training", "tritonic"]
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    assert own == sorted([*packages, "benchmarks", "tests", "training"])
    for folder in (".", "mine", *own):
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
    assert found == own


def test_recipes_change_into_folders_that_exist() -> None:
    folders = re.findall(r"\bcd ([\w./-]+)", (ROOT / "Makefile").read_text())
    assert folders and all((ROOT / folder).is_dir() for folder in folders), folders
