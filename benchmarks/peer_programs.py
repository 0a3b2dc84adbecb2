"""Installs and runs the programs that Tritonic is compared with, each in its own environment in the cache folder."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

import httpx
import psutil


@dataclass(frozen=True, slots=True)
class PyPIProgram:
    """A package of PyPI with a fixed version."""

    package: str
    """Its name with extras, as pip takes it."""
    version: str
    extra_requirements: tuple[str, ...] = ()
    """More requirements to install."""
    excluded_packages: tuple[str, ...] = ()
    """Requirements of the package to uninstall again, because it cannot use them here."""

    def contents(self, cache: Path) -> dict[str, str]:
        """Return the versions of the packages in its environment, by name. Empty if it is not installed."""
        home = cache / "peers" / self.folder
        return versions(*home.glob("lib/python*/site-packages"))

    @property
    def folder(self) -> str:
        """The folder name of the environment."""
        return f"{self.package.split('[')[0]}-{self.version}"

    def installed(self, cache: Path) -> Path:
        """Return the folder of its commands. The first call installs it. Raises `CalledProcessError` if pip fails."""
        home = cache / "peers" / self.folder
        if not (home / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
            pip = [str(home / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "install", f"{self.package}=={self.version}", *self.extra_requirements], check=True)
            if self.excluded_packages:
                subprocess.run([*pip, "uninstall", "--yes", *self.excluded_packages], check=True)
            (home / "complete").touch()
        return home / "bin"


def versions(*folders: Path) -> dict[str, str]:
    """Return the versions of the packages in these folders, by name."""
    packages = distributions(path=[str(folder) for folder in folders])
    return dict(sorted((package.metadata["Name"], package.version) for package in packages))


@contextlib.contextmanager
def running_process(
    command: Sequence[str | Path],
    log: Path,
    cores: set[int] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[psutil.Process]:
    """Run a process on `cores` inside a `with`, with additional variables in `environment`.

    Its output goes to `log`. At the end, the process and its descendants are terminated.
    """
    with log.open("wb") as out:
        child = subprocess.Popen(
            [str(argument) for argument in command],
            stdout=out,
            stderr=out,
            env={**os.environ, **(environment or {})},
            preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
        )
    process = psutil.Process(child.pid)
    try:
        yield process
    finally:
        descendants = process.children(recursive=True) if child.poll() is None else []
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        for descendant in descendants:
            with contextlib.suppress(psutil.NoSuchProcess):
                descendant.terminate()
        _, alive = psutil.wait_procs(descendants, timeout=10)
        for descendant in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                descendant.kill()
        psutil.wait_procs(alive, timeout=10)


def wait_until_ready(url: str, process: psutil.Process, log: Path, seconds: float = 180) -> None:
    """Wait until `url` answers with 200. Raises `SystemExit` with the end of `log` if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        time.sleep(0.5)
    raise SystemExit(f"{url} does not answer:\n{log.read_text(errors='replace')[-2000:]}")


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and its descendants so far."""
    total = 0.0
    for member in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            total += times.user + times.system
    return total


def rss_megabytes(process: psutil.Process) -> float:
    """Return the resident memory of a process and its descendants, in units of 10^6 bytes."""
    total = 0
    for member in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += member.memory_info().rss
    return total / 1e6
