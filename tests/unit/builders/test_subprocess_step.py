"""Steps in a process of their own: results, output, failures, and what an isolated one finds loaded."""

import os
import signal
import sys
from pathlib import Path

import pytest

from builders import subprocess_step
from builders.errors import ExportFailed

STEP = """
import os
import signal
import sys

def add(one, other):
    print("adding", flush=True)
    return {"sum": one + other, "process": os.getpid()}

def fail():
    for number in range(40):
        print(f"line {number}")
    raise ValueError("no such operator")

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def builders():
    return "builders" in sys.modules
"""


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The module `a_step`, which an isolated process loads by its file."""
    (tmp_path / "a_step.py").write_text(STEP)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "a_step", raising=False)
    return "a_step"


def test_a_result_and_the_output_come_back(step: str) -> None:
    lines: list[str] = []
    result = subprocess_step.run(f"{step}:add", {"one": 1, "other": 2}, "Adding", lines.append, isolated=True)
    assert result["sum"] == 3
    assert result["process"] != os.getpid()
    assert lines == ["adding"]


def test_a_failure_quotes_the_end_of_the_output(step: str) -> None:
    with pytest.raises(ExportFailed, match=r"^Adding failed\. The end of what it said:\n") as failure:
        subprocess_step.run(f"{step}:fail", {}, "Adding", isolated=True)
    lines = str(failure.value).splitlines()
    assert len(lines) == 1 + subprocess_step.MAX_LINES
    assert lines[-1] == "ValueError: no such operator"
    with pytest.raises(ExportFailed, match=f"^Adding ended with signal {int(signal.SIGKILL)}"):
        subprocess_step.run(f"{step}:die", {}, "Adding", isolated=True)


def test_an_isolated_step_has_none_of_our_packages_loaded(step: str) -> None:
    assert subprocess_step.run(f"{step}:builders", {}, "Looking", isolated=True) is False
    name = subprocess_step.run("builders.recipe:default_model_name", {"source": "Qwen/Qwen2.5"}, "Naming")
    assert name == "qwen2.5"


def test_an_interrupted_build_leaves_no_process(tmp_path: Path) -> None:
    started: list[int] = []

    def interrupt(line: str) -> None:
        started.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        subprocess_step.run_command(["sh", "-c", "echo $$; exec sleep 60"], interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)
