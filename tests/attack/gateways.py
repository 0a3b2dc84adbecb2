"""The attacked gateway: `tritonic serve` in processes of its own, in front of a scripted Triton."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest import mock

import psutil

from tests.attack.raw_http import get_text
from tritonic.gateway_process import SERVE_COMMAND, GatewayProcess
from tritonic.ports import free_ports

ATTACKER, HONEST = "sk-attacker", "sk-honest"
ROOT = Path(__file__).parents[2]
SHORT_TIMEOUTS = {
    # Timeouts must expire within a test. The gateway ignores unknown settings.
    "TRITONIC_HEAD_TIMEOUT": "1.5",
    "TRITONIC_IDLE_TIMEOUT": "2",
    "TRITONIC_BODY_TIMEOUT": "2.5",
    "TRITONIC_MEDIA_TIMEOUT": "2",
    "TRITONIC_SEND_TIMEOUT": "5",
    "TRITONIC_LOG_LEVEL": "warning",
    # The address of the tests' own servers. Other spellings of it stay forbidden.
    "TRITONIC_MEDIA_ALLOWED_HOSTS": "127.0.0.1",
}


@dataclass(frozen=True, slots=True)
class GatewaySetup:
    """The configuration of a gateway, without the number of its workers."""

    settings: dict[str, str] = field(default_factory=dict)
    keys: bool = True
    """True if callers need a key, `ATTACKER` or `HONEST`."""
    descriptors: int | None = None
    """The hard limit of open files of its processes."""


SETUPS = {
    "keys": GatewaySetup(),
    "open": GatewaySetup(keys=False),
    "few files": GatewaySetup(descriptors=256),
    "tasks": GatewaySetup({"TRITONIC_TASKS_PER_KEY": "40"}),
    "small": GatewaySetup({"TRITONIC_MODEL_REQUESTS": "40"}),
}


class AttackedGateway:
    """A running gateway. `pids` are its worker processes."""

    def __init__(self, setup: str, workers: int, triton: int, folder: Path) -> None:
        """Start a gateway in front of the Triton at the port `triton`. Raises as `GatewayProcess` does."""
        self.setup, self.workers = setup, workers
        configuration = SETUPS[setup]
        self.keys = configuration.keys
        limit = f"ulimit -n {configuration.descriptors} && " if configuration.descriptors else ""
        environment = {**SHORT_TIMEOUTS, **configuration.settings, "PYTHONPATH": str(ROOT)}
        if configuration.keys:
            environment["TRITONIC_API_KEYS"] = f"{ATTACKER},{HONEST}"
        with mock.patch.dict(os.environ, environment):
            self._process = GatewayProcess(
                "127.0.0.1",
                free_ports(1)[0],
                f"127.0.0.1:{triton}",
                folder / "gateway.log",
                ("sh", "-c", f'{limit}exec "$0" "$@"', *SERVE_COMMAND),
                grace=5,
                workers=workers,
            )
        self.log = folder / "gateway.log"
        self._process.start()
        try:
            self._process.wait_live()
            deadline = time.monotonic() + 20
            while not (self._process.has_models() and len(self.live_pids()) == workers):
                assert time.monotonic() < deadline, f"the gateway found no models: {self.log.read_text()[-2000:]}"
                time.sleep(0.05)
        except BaseException:
            self.stop()
            raise
        self.pids = self.live_pids()
        # The first request loads libraries, which must not count as the cost of an attack.
        for _ in range(8 * workers):
            get_text(self.address, "/metrics", self.auth_header(HONEST))

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return "127.0.0.1", self._process.port

    @property
    def url(self) -> str:
        """The base URL."""
        return self._process.url

    def auth_header(self, key: str) -> dict[str, str]:
        """Return the header with `key`, no header if this gateway has no keys."""
        return {"Authorization": f"Bearer {key}"} if self.keys else {}

    def live_pids(self) -> list[int]:
        """Return the worker processes that run now, without the processes that decode files."""
        first = psutil.Process(self._process.child.pid)
        if self.workers == 1:
            return [first.pid]
        command = first.cmdline()
        return sorted(child.pid for child in first.children() if _has_command(child, command))

    def stop(self) -> None:
        """Stop all its processes."""
        self._process.stop()


def _has_command(process: psutil.Process, command: list[str]) -> bool:
    try:
        return process.cmdline() == command and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class GatewayPool:
    """The gateways of all tests, each started at its first use."""

    def __init__(self, folder: Path) -> None:
        """Keep logs and state in `folder`."""
        self._folder = folder
        self._served: dict[tuple[str, int], AttackedGateway] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        triton = self._stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "tests.attack.triton_main"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert triton.stdout is not None
        self._triton = int(triton.stdout.readline())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for served in self._served.values():
            served.stop()
        self._stack.close()

    def get(self, setup: str, workers: int) -> AttackedGateway:
        """Return the gateway with this setup. It is restarted if the last attack ended one of its processes."""
        served = self._served.get((setup, workers))
        if served is not None and served.live_pids() != served.pids:
            served.stop()
            served = None
        if served is None:
            folder = self._folder / f"{setup}-{workers}-{time.monotonic_ns()}".replace(" ", "-")
            folder.mkdir(parents=True)
            served = self._served[setup, workers] = AttackedGateway(setup, workers, self._triton, folder)
        return served
