"""`make check` and `make test ARGS=--after-check` together run each test once."""

import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests import conftest

MAKEFILE = Path(__file__).parents[2] / "Makefile"


def test_after_check_leaves_out_what_check_runs() -> None:
    makefile = MAKEFILE.read_text()
    found = re.search(r"^FAST_TESTS = \$\(BIN\)/pytest ([^\"\\]+) \\\n *-m \"([^\"]+)\"", makefile, re.M)
    assert found
    assert re.search(r"^check:(.*\n\t.*)*\n\t\$\(FAST_TESTS\) \$\(ARGS\)$", makefile, re.M)
    assert {f"{folder}/" for folder in found[1].split()} == set(conftest._CHECKED)
    assert {mark.removeprefix("not ") for mark in found[2].split(" and ")} == set(conftest._SLOW)


def test_every_test_is_in_one_group() -> None:
    """Without ARGS `make test` runs the fast tests, those that mostly wait, the rest, and those of Triton."""
    commands = _dry_run()
    fast, waiting, rest, triton = (command.split()[1:] for command in commands)
    assert fast[: len(conftest._CHECKED)] == [folder.rstrip("/") for folder in conftest._CHECKED]
    assert waiting[:2] == ["tests/tasks", "tests/supervision"]
    assert triton[0] == "tests/triton"
    assert rest[-4:] == ["--after-check", *(f"--ignore={folder}" for folder in [*waiting[:2], triton[0]])]
    assert _dry_run("ARGS=--after-check") == commands[1:]
    assert [command.split()[-2:] for command in _dry_run("ARGS=-k chat")] == [["-k", "chat"]]


def test_after_check_imports_the_files_with_slow_tests() -> None:
    folder = Path(__file__).parents[1]
    after_check: Any = SimpleNamespace(getoption=lambda name: name == "--after-check", rootpath=folder.parent)
    imported = {
        path.name for path in folder.rglob("test_*.py") if not conftest.pytest_ignore_collect(path, after_check)
    }
    assert imported >= {"test_up.py", "test_vision_build.py", "test_attacks.py", "test_task_queue.py"}
    assert not imported & {"test_fakes.py", "test_slow_readers.py", "test_imports.py"}
    for path in folder.rglob("*.py"):
        assert path == Path(__file__) or "add_marker" not in path.read_text(), "the text of a file must name its marks"


def _dry_run(*given: str) -> list[str]:
    """The commands of pytest that `make test` would run."""
    # A make that runs these tests hands its own flags and ARGS down in the environment.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    ran = subprocess.run(
        ["make", "--dry-run", "test", *given],
        cwd=MAKEFILE.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [line for line in ran.stdout.replace("\\\n", "").splitlines() if line.split(" ")[0].endswith("/pytest")]
