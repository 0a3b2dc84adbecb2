"""`make install` prints a line for each stage, and the end of pip's log if pip fails."""

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOGGED = ROOT / ".ci/logged"
# An environment's interpreter whose pip prints as much as a real one, and then ends as it is told to.
PIP = """#!/bin/bash
echo "$*" >> asked
for number in {{1..400}}; do echo "Collecting package-$number"; done
echo "ERROR: No matching distribution found for orjson==99.0" >&2
exit {status}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder in which `make install` has an environment, and pip is still to be run."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    return tmp_path


def install(checkout: Path, status: int) -> subprocess.CompletedProcess[str]:
    python = checkout / ".venv/bin/python"
    python.write_text(PIP.format(status=status))
    python.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "--no-print-directory", "install"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_installation_prints_a_handful_of_lines(checkout: Path) -> None:
    ran = install(checkout, status=0)
    assert ran.returncode == 0, ran.stderr
    installing, done = ran.stdout.splitlines()
    assert installing.startswith("Installing the pinned dependencies into .venv;") and ".venv/install.log" in installing
    assert done.startswith("  done after ")
    assert ran.stderr == ""
    log = (checkout / ".venv/install.log").read_text().splitlines()
    assert len(log) == 401 and log[-1].startswith("ERROR:")
    install(checkout, status=1)  # is not asked again
    assert (checkout / "asked").read_text().count("-m pip install") == 1


def test_a_failure_shows_the_end_of_the_log_and_is_tried_again(checkout: Path) -> None:
    ran = install(checkout, status=1)
    assert ran.returncode != 0
    heading, *shown = ran.stderr.splitlines()[:-1]
    assert heading == ".venv/bin/python failed with status 1. The end of .venv/install.log:"
    assert len(shown) == 20 and shown[-1] == "    ERROR: No matching distribution found for orjson==99.0"
    assert ran.stderr.splitlines()[-1].startswith("make: *** ")
    assert install(checkout, status=0).returncode == 0


@pytest.mark.parametrize("status", [0, 7])
def test_a_terminal_shows_the_line_that_the_command_is_at(tmp_path: Path, status: int) -> None:
    screen, terminal = pty.openpty()
    script = f"echo first; echo {'long ' * 100}; exit {status}"
    ran = subprocess.Popen(
        [LOGGED, tmp_path / "new/log", "bash", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "dumb"},
    )
    assert ran.wait(60) == status
    shown = os.read(screen, 1 << 16).decode()
    os.close(screen)
    os.close(terminal)
    assert shown.startswith("\r\x1b[K  first\r\x1b[K  long ")
    assert max(map(len, shown.split("\r\x1b[K")[:3])) <= 80
    assert ("failed with status 7" in shown) == bool(status)
    assert (tmp_path / "new/log").read_text().startswith("first\nlong long ")
