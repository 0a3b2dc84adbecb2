"""`tritonic build chat` as a process: exit statuses, messages, signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

COMMAND = [sys.executable, "-m", "tritonic.build", "chat"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--source", "/nowhere"], 1, "There is no folder '/nowhere'"),
        (["--target", "llmapi", "--device", "cpu"], 1, "TensorRT-LLM runs on NVIDIA GPUs alone"),
        (["--precision", "int3"], 2, "precision"),
        (["--recipe", "nonsense"], 2, "There is no recipe 'nonsense'. Known: "),
        (["--source", "packaged:nonsense"], 2, "smollm2-135m-instruct"),
        (["--name", "../escape"], 2, "name"),
        (["--nonsense"], 2, "No such option"),
    ],
)
def test_failures_give_a_message_and_a_status(tmp_path: Path, arguments: list[str], status: int, sentence: str) -> None:
    done = run(*arguments, "--repository", str(tmp_path / "repository"))
    assert done.returncode == status, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_do_is_success(built: object, tiny: Path, tmp_path: Path) -> None:
    repository = built.folder.parent  # type: ignore[attr-defined]
    done = run("--source", str(tiny), "--name", "tiny", "--precision", "fp32", "--repository", str(repository))
    assert done.returncode == 0, done.stderr
    assert "is there already" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_build_leaves_the_repository_unchanged_and_no_process(
    tiny: Path, tmp_path: Path, number: signal.Signals
) -> None:
    repository = tmp_path / "repository"
    (repository / "other").mkdir(parents=True)
    arguments = ["--source", str(tiny), "--name", "tiny", "--repository", str(repository)]
    build = subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert build.stdout is not None
        while not build.stdout.readline().startswith("2/4 export"):
            assert build.poll() is None
        exporters = _wait_for_children(build.pid)
        build.send_signal(number)
        _, errors = build.communicate(timeout=60)
    finally:
        build.kill()
        build.wait()
    assert [path.name for path in repository.iterdir()] == ["other"]
    _, alive = psutil.wait_procs(exporters, timeout=30)
    assert alive == []
    if number == signal.SIGKILL:
        assert build.returncode == -signal.SIGKILL
    else:
        assert build.returncode == 1
        assert "interrupted; the repository is as it was" in errors
        assert "Traceback" not in errors
        assert [path.name for path in tmp_path.iterdir()] == ["repository"]


def _wait_for_children(pid: int) -> list[psutil.Process]:
    for _ in range(200):
        if children := psutil.Process(pid).children():
            return children
        time.sleep(0.02)
    raise AssertionError("the exporter did not start")
