import socket
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.peer_programs import PyPIProgram, cpu_seconds, rss_megabytes, running_process, wait_until_ready

PARENT = """
import subprocess, sys, time
below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
while time.process_time() < 0.1:  # several ticks of the clock by which a kernel may count
    pass
print(below.pid, flush=True)
time.sleep(60)
"""


def said(log: Path) -> str:
    deadline = time.monotonic() + 20
    while not (text := log.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return text


def test_an_environment_is_named_by_package_and_version() -> None:
    assert PyPIProgram("litellm[proxy]", "1.2.3").folder == "litellm-1.2.3"


def test_what_is_installed_is_not_installed_again(tmp_path: Path) -> None:
    program = PyPIProgram("some-program", "1.0")
    home = tmp_path / "peers" / "some-program-1.0"
    home.mkdir(parents=True)
    (home / "complete").touch()
    assert program.installed(tmp_path) == home / "bin"


def test_what_is_in_an_environment_is_told(tmp_path: Path) -> None:
    program = PyPIProgram("some-program", "1.0")
    assert program.contents(tmp_path) == {}
    lies = tmp_path / "peers" / "some-program-1.0" / "lib" / "python3.11" / "site-packages"
    for name, version in (("some_program", "1.0"), ("h11", "0.16.0")):
        about = lies / f"{name}-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    assert program.contents(tmp_path) == {"h11": "0.16.0", "some_program": "1.0"}


def test_a_child_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_process([sys.executable, "-c", PARENT], log) as process:
        below = psutil.Process(int(said(log)))
        assert below.is_running()
        assert rss_megabytes(process) > process.memory_info().rss / 1e6
        assert cpu_seconds(process) > 0
    assert not process.is_running()
    assert not below.is_running() or below.status() == psutil.STATUS_ZOMBIE


def test_a_child_has_more_in_its_environment(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "import os; print(os.environ['ADDED'], 'PATH' in os.environ, flush=True)"
    with running_process([sys.executable, "-c", script], log, more={"ADDED": "this"}):
        assert said(log) == "this True"


def test_a_program_that_dies_is_told_with_its_last_words(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        log = tmp_path / "log"
        command = [sys.executable, "-c", "raise SystemExit('no weights')"]
        with running_process(command, log) as process, pytest.raises(SystemExit, match="no weights"):
            wait_until_ready(url, process, log, 30)
