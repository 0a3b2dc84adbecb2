"""Installation of programs from PyPI, and their processes."""

import socket
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.peer_programs import PyPIProgram, cpu_seconds, rss_megabytes, running_process, wait_until_ready

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
while time.process_time() < 0.1:  # some kernels count CPU time in ticks of 10 ms
    pass
print(child.pid, flush=True)
time.sleep(60)
"""


def read_output(log: Path) -> str:
    """Return the output as soon as there is any, within 20 seconds."""
    deadline = time.monotonic() + 20
    while not (text := log.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return text


def test_an_environment_is_named_by_package_and_version() -> None:
    assert PyPIProgram("litellm[proxy]", "1.2.3").folder == "litellm-1.2.3"


def test_an_installed_program_is_not_installed_again(tmp_path: Path) -> None:
    program = PyPIProgram("some-program", "1.0")
    home = tmp_path / "peers" / "some-program-1.0"
    home.mkdir(parents=True)
    (home / "complete").touch()
    assert program.installed(tmp_path) == home / "bin"


def test_the_contents_of_an_environment_are_its_packages_and_versions(tmp_path: Path) -> None:
    program = PyPIProgram("some-program", "1.0")
    assert program.contents(tmp_path) == {}
    site_packages = tmp_path / "peers" / "some-program-1.0" / "lib" / "python3.11" / "site-packages"
    for name, version in (("some_program", "1.0"), ("h11", "0.16.0")):
        dist_info = site_packages / f"{name}-{version}.dist-info"
        dist_info.mkdir(parents=True)
        (dist_info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    assert program.contents(tmp_path) == {"h11": "0.16.0", "some_program": "1.0"}


def test_a_process_is_ended_with_its_children(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_process([sys.executable, "-c", PARENT], log) as process:
        child = psutil.Process(int(read_output(log)))
        assert child.is_running()
        assert rss_megabytes(process) > process.memory_info().rss / 1e6
        assert cpu_seconds(process) > 0
    assert not process.is_running()
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_process_gets_additional_environment_variables(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "import os; print(os.environ['ADDED'], 'PATH' in os.environ, flush=True)"
    with running_process([sys.executable, "-c", script], log, environment={"ADDED": "this"}):
        assert read_output(log) == "this True"


def test_the_error_of_a_dead_program_has_the_end_of_its_log(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        log = tmp_path / "log"
        command = [sys.executable, "-c", "raise SystemExit('no weights')"]
        with running_process(command, log) as process, pytest.raises(SystemExit, match="no weights"):
            wait_until_ready(url, process, log, 30)
