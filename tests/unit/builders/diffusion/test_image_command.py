"""`tritonic build image` as a process: exit statuses and messages."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from builders.build import BuildResult


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tritonic.build", "image", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--source", "/nowhere"], 1, "There is no folder '/nowhere'"),
        (["--source", "packaged:nonsense"], 2, "Known: shapes."),
        (["--recipe", "smollm2-135m-instruct"], 2, "is of the family 'llm', not 'diffusion'"),
        (["--recipe", "sdxl-turbo", "--precision", "int8"], 1, "built in fp32, not int8"),
    ],
)
def test_failures_give_a_message_and_a_status(tmp_path: Path, arguments: list[str], status: int, sentence: str) -> None:
    done = run(*arguments, "--repository", str(tmp_path / "repository"))
    assert done.returncode == status, done.stderr
    assert sentence in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr + done.stdout
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_do_is_success(built: BuildResult) -> None:
    source = json.loads((built.folder / "BUILD.json").read_bytes())["source"]
    done = run("--source", source, "--name", "tiny", "--repository", str(built.folder.parent))
    assert done.returncode == 0, done.stderr
    assert "is there already" in done.stdout
