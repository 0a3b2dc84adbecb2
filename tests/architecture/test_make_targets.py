"""The second half of the tests leaves out exactly what the first half ran."""

import os
import re
import subprocess
from pathlib import Path

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
    """Without ARGS `make test` runs the fast tests, those that mostly wait, and the rest."""
    commands = _dry_run()
    fast, waiting, rest = (command.split()[1:] for command in commands)
    assert fast[: len(conftest._CHECKED)] == [folder.rstrip("/") for folder in conftest._CHECKED]
    assert waiting[:2] == ["tests/tasks", "tests/supervision"]
    assert rest[-3:] == ["--after-check", "--ignore=tests/tasks", "--ignore=tests/supervision"]
    assert _dry_run("ARGS=--after-check") == commands[1:]
    assert [command.split()[-2:] for command in _dry_run("ARGS=-k chat")] == [["-k", "chat"]]


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
