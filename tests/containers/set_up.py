"""docker-compose.yml as it stands, by Compose 2, in networks of an engine that has bridges."""

import os
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.containers.engine import PROJECT, Engine, wait_until

GATEWAY = "http://127.0.0.1:1088"
MACHINE, OUTSIDE = "10.77.0.1", "10.78.0.2"
"""Addresses of inside.sh: of the machine, and of a host outside of it with a server at port 8000."""
MEMLOCK = 8_388_608
"""Bytes that an engine without CAP_SYS_RESOURCE can set, unlike the limit of docker-compose.yml."""


@dataclass(slots=True)
class SetUp:
    """The services of some profiles."""

    engine: Engine
    root: Path
    folder: Path
    profiles: str
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of compose, beside those of .env."""

    def compose(self, *arguments: str, check: bool = True) -> str:
        override = self.folder / "override.yml"
        override.write_text(yaml.safe_dump({"services": {"triton": {"ulimits": {"memlock": MEMLOCK}}}}))
        options = ["--file", str(self.root / "docker-compose.yml"), "--file", str(override)]
        options += ["--project-directory", str(self.root), "--project-name", PROJECT]
        environment = os.environ | {"COMPOSE_PROFILES": self.profiles} | self.environment
        command = [self.engine.docker, "compose", *options, *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=self.root)
        assert ran.returncode == 0 or not check, f"docker compose {' '.join(arguments)}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def up(self, *arguments: str) -> None:
        self.compose("up", "--detach", "--no-build", *arguments)

    def containers(self, service: str) -> list[str]:
        """The ids of the service's running containers."""
        return self.compose("ps", "--quiet", service).split()

    def address(self, container: str, network: str) -> str:
        """The IP address of a container in a network of the project."""
        networks = self.engine.inspect(container)["NetworkSettings"]["Networks"]
        return str(networks[f"{PROJECT}_{network}"]["IPAddress"])

    def reaches(self, container: str, address: str, port: int) -> bool:
        """Whether a container with a Python can connect to an address."""
        script = f"import socket; socket.create_connection(('{address}', {port}), 2); print('connected')"
        return "connected" in self.engine.execute(container, "python3", "-c", script, check=False)

    def wait_healthy(self, service: str, seconds: float) -> None:
        def healthy() -> bool:
            states = [self.engine.inspect(container)["State"] for container in self.containers(service)]
            return bool(states) and all(state["Health"]["Status"] == "healthy" for state in states)

        wait_until(healthy, seconds, f"{service} is not healthy")


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def wait_ready(urls: Iterable[str]) -> float:
    return wait_until(lambda: all(is_ready(url) for url in urls), 600, "a gateway is not ready")


def ask_prometheus(path: str, **parameters: str) -> Any:
    answer = httpx.get(f"http://127.0.0.1:9090/api/v1/{path}", params=parameters, timeout=10, trust_env=False).json()
    assert answer["status"] == "success", answer
    return answer["data"]


def scraped(job: str) -> int:
    """How many targets of a job Prometheus reaches now."""
    targets = ask_prometheus("targets")["activeTargets"]
    return sum(target["labels"]["job"] == job and target["health"] == "up" for target in targets)


def connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True
