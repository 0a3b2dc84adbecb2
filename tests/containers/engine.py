"""A Docker engine and the deployment under test, through their command lines."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.containers.host_network import Ports, on_host_network

PROJECT = "tritoniccontainers"


@dataclass(frozen=True, slots=True)
class Engine:
    """The command `docker`. DOCKER_HOST names the engine."""

    docker: str

    def run(self, *arguments: str, check: bool = True, input: str | None = None) -> str:
        """Return the output. Raises `AssertionError` with it if the command fails."""
        ran = subprocess.run([self.docker, *arguments], capture_output=True, text=True, input=input)
        assert ran.returncode == 0 or not check, f"docker {' '.join(arguments)}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def inspect(self, container: str) -> dict[str, Any]:
        return dict(json.loads(self.run("inspect", container))[0])

    def execute(self, container: str, *command: str, check: bool = True) -> str:
        return self.run("exec", container, *command, check=check)


@dataclass(slots=True)
class Deployment:
    """The compose project under test."""

    engine: Engine
    project: dict[str, Any]
    ports: Ports
    root: Path
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of compose, beside those of .env."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports.gateway}"

    def compose(self, *arguments: str, check: bool = True) -> str:
        file = self.folder / "docker-compose.yml"
        file.write_text(yaml.safe_dump(on_host_network(self.project, self.ports)))
        options = ["--file", str(file), "--project-directory", str(self.root), "--project-name", PROJECT]
        options += ["--env-file", str(self.root / ".env")]
        # docker-compose 1.29 would otherwise build with a builder that this engine's Debian package lacks.
        environment = os.environ | {"COMPOSE_DOCKER_CLI_BUILD": "0"} | self.environment
        command = ["/usr/bin/docker-compose", *options, *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=self.root)
        assert ran.returncode == 0 or not check, f"docker-compose {' '.join(arguments)}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def build(self, service: str, log: Path) -> float:
        """Build an image, and return the seconds that it took."""
        started = time.monotonic()
        log.write_text(self.compose("build", service))
        return time.monotonic() - started

    def up(self, *arguments: str) -> None:
        self.compose("up", "--detach", "--no-build", *arguments)

    def container(self, service: str) -> str:
        """The id of the service's container."""
        found = self.compose("ps", "--quiet", service).split()
        assert len(found) == 1, f"{service}: {found}"
        return found[0]

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def wait_ready(self, seconds: float) -> float:
        return wait_until(self.ready, seconds, "the gateway is not ready")

    def wait_healthy(self, service: str, seconds: float) -> None:
        def healthy() -> bool:
            state = self.engine.inspect(self.container(service))["State"]
            return bool(state["Running"] and state["Health"]["Status"] == "healthy")

        wait_until(healthy, seconds, f"{service} is not healthy")

    def processes(self, service: str) -> dict[int, str]:
        """The processes of a service's container: process ids of the host, and their command lines."""
        lines = self.engine.run("top", self.container(service), "-eo", "pid,args").splitlines()[1:]
        return {int(line.split(None, 1)[0]): line.split(None, 1)[1] for line in lines}

    def memory(self, service: str) -> dict[str, int]:
        """The bytes of all processes of a service's container: `Rss`, and `Pss`, its share of pages used by several."""
        rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.processes(service)]
        sizes = dict.fromkeys(("Rss", "Pss"), 0)
        for line in "".join(rollups).splitlines():
            kind, _, size = line.partition(":")
            if kind in sizes:
                sizes[kind] += int(size.split()[0]) * 1024
        return sizes

    def cgroup_bytes(self, service: str) -> int:
        """The memory that `docker stats` shows: of the control group, without inactive pages of files."""
        folder = Path(f"/sys/fs/cgroup/memory/docker/{self.engine.inspect(self.container(service))['Id']}")
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        usage = int((folder / "memory.usage_in_bytes").read_text())
        return usage - int(statistics["total_inactive_file"])

    @contextmanager
    def variables(self, **values: str) -> Iterator[None]:
        """Give compose these variables within the block."""
        before = dict(self.environment)
        self.environment.update(values)
        try:
            yield
        finally:
            self.environment.clear()
            self.environment.update(before)


def wait_until(check: Callable[[], bool], seconds: float, failure: str) -> float:
    """Poll until `check` is true. Return the seconds that it took. Raises `AssertionError` after `seconds`."""
    started = time.monotonic()
    while not check():
        assert time.monotonic() - started < seconds, f"{failure} after {seconds:g} s"
        time.sleep(0.5)
    return time.monotonic() - started
