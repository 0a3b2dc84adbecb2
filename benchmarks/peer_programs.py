"""Programs from PyPI that are measured beside Tritonic, each in an environment of its own in the cache folder."""

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
    """A package with a version, and what it needs beside its own requirements."""

    package: str
    """As pip names it, with extras."""
    version: str
    extra_requirements: tuple[str, ...] = ()
    """Requirements that are installed along with it."""
    excluded_packages: tuple[str, ...] = ()
    """Packages that are taken out again: what it asks for but cannot use here."""

    def contents(self, cache: Path) -> dict[str, str]:
        """What is in its environment, by name and version; empty where it was not installed."""
        home = cache / "peers" / self.folder
        return versions(*home.glob("lib/python*/site-packages"))

    @property
    def folder(self) -> str:
        """The environment's name."""
        return f"{self.package.split('[')[0]}-{self.version}"

    def installed(self, cache: Path) -> Path:
        """The folder of its commands, installed where it is not yet. Raises `CalledProcessError`."""
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
    """The packages that lie in these folders, by name and version."""
    found = distributions(path=[str(folder) for folder in folders])
    return dict(sorted((each.metadata["Name"], each.version) for each in found))


@contextlib.contextmanager
def running_process(
    command: Sequence[str | Path],
    log: Path,
    cores: set[int] | None = None,
    more: Mapping[str, str] | None = None,
) -> Iterator[psutil.Process]:
    """A process on these cores for the time of a measurement, with `more` in its environment; it speaks into `log`.

    It and all that it started are ended.
    """
    with log.open("wb") as out:
        started = subprocess.Popen(
            [str(each) for each in command],
            stdout=out,
            stderr=out,
            env={**os.environ, **(more or {})},
            preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
        )
    process = psutil.Process(started.pid)
    try:
        yield process
    finally:
        below = process.children(recursive=True) if started.poll() is None else []
        started.terminate()
        try:
            started.wait(30)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        for each in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.terminate()
        _, alive = psutil.wait_procs(below, timeout=10)
        for each in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(alive, timeout=10)


def wait_until_ready(url: str, process: psutil.Process, log: Path, seconds: float = 180) -> None:
    """Wait until `url` answers with 200. Raises `SystemExit` with the end of `log` where it never does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        time.sleep(0.5)
    raise SystemExit(f"{url} does not answer:\n{log.read_text(errors='replace')[-2000:]}")


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time of a process and all below it so far."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
    return total


def rss_megabytes(process: psutil.Process) -> float:
    """Resident memory of a process and all below it."""
    total = 0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += each.memory_info().rss
    return total / 1e6
