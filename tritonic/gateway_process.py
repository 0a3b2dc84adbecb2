"""The gateway as a child process of `up`."""

import contextlib
import http.client
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gateway.observability import watchdog
from tritonic.child import Child, describe_exit
from tritonic.errors import TritonicError
from tritonic.liveness_probe import LivenessProbe
from tritonic.logfile import LogFile

SERVE_COMMAND = (sys.executable, "-m", "tritonic", "serve")


class GatewayProcessError(TritonicError):
    """The gateway ended or did not respond in time; the message ends with the last lines of its log."""


class GatewayProcess:
    """`tritonic serve` under a reaper. It listens on `host:port` and calls the Triton at `triton_grpc`."""

    name = "The gateway"

    def __init__(
        self,
        host: str,
        port: int,
        triton_grpc: str,
        log_path: Path,
        command: Sequence[str] = SERVE_COMMAND,
        grace: float = 15.0,
        workers: int | None = None,
        hang_timeout: float = 10.0,
    ) -> None:
        """Prepare; nothing runs before `start()`. `grace` is the number of seconds between SIGTERM and SIGKILL.

        `workers` is the number of worker processes (default: from the environment). A gateway that does not answer
        its health check for `hang_timeout` seconds has a fault; 0 turns that off.
        """
        self.port = port
        # A wildcard address includes loopback.
        self._local_host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
        self._env = os.environ | {
            "TRITONIC_HOST": host,
            "TRITONIC_PORT": str(port),
            "TRITONIC_TRITON_URLS": triton_grpc,
            # The gateway's state lies beside its log.
            "TRITONIC_STATE": str(log_path.parent.resolve()),
        }
        if workers is not None:
            self._env["TRITONIC_WORKERS"] = str(workers)
        self._log = LogFile(log_path)
        self._command = list(command)
        self._grace = grace
        self._child: Child | None = None
        self._liveness = LivenessProbe(self._responds, hang_timeout)
        self._stop_requested = False

    @property
    def url(self) -> str:
        """Base URL for clients on this machine, without a slash at the end."""
        host = f"[{self._local_host}]" if ":" in self._local_host else self._local_host
        return f"http://{host}:{self.port}"

    @property
    def child(self) -> Child:
        """The gateway's process. Raises RuntimeError before `start()`."""
        if self._child is None:
            raise RuntimeError("The gateway has not been started.")
        return self._child

    def start(self) -> None:
        """Start without waiting. Raises ChildError and OSError."""
        self._liveness, self._stop_requested = self._liveness.for_new_process(), False
        with self._log.open() as log:
            self._child = Child(self._command, env=self._env, output=log, grace=self._grace)

    def is_live(self) -> bool:
        """Return whether the gateway answers /health/live."""
        return self._status("/health/live") == 200

    is_ready = is_live

    def has_models(self) -> bool:
        """Return whether the gateway answers /health/ready: it has found a model that serves."""
        return self._status("/health/ready") == 200

    def wait_live(self, timeout: float = 60.0) -> None:
        """Wait until the gateway is live. Raises GatewayProcessError when it ends, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not self.is_live():
            status = self.poll()
            if status is not None or time.monotonic() > deadline:
                what = describe_exit(status) if status is not None else f"did not answer within {timeout:.0f} seconds"
                raise GatewayProcessError(
                    "\n".join([f"The gateway {what}.", *(f"  {x}" for x in self.last_log_lines())])
                )
            time.sleep(0.05)

    def poll(self) -> int | None:
        """Return the exit status (128 + signal when killed), or None while it runs."""
        return self.child.poll()

    def fault(self) -> str | None:
        """Return a fault if the gateway has not answered for too long. Does not wait.

        The first call that finds the gateway silent only asks it to log its stack and exit.
        """
        silent = self._liveness.silent_seconds()
        if silent is None:
            return None
        if not self._stop_requested:
            # The gateway logs its stack and exits. The next check sees whether it did.
            self._stop_requested = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.child.pid, watchdog.SIGNAL)
            return None
        return f"has not answered for {silent:.0f} s"

    def rotate_log(self) -> None:
        """Rotate the log if it is large."""
        self._log.rotate_if_large()

    def kill(self) -> None:
        """Send SIGKILL."""
        self.child.kill()

    def stop(self) -> None:
        """Stop the gateway and all its processes. Do nothing when it does not run."""
        if self._child is not None:
            self._child.stop()

    def last_log_lines(self) -> list[str]:
        """Return the last three lines of this run's log that are not JSON log records."""
        return [line for line in self._log.lines() if line.strip() and not line.startswith("{")][-3:]

    def _responds(self, seconds: float) -> bool:
        """Return whether the gateway reacts within `seconds`. A refused or closed connection at its limit counts."""
        try:
            self._ask("/health/live", seconds)
        except (TimeoutError, ConnectionRefusedError):
            return False
        except (OSError, http.client.HTTPException):
            return True
        return True

    def _status(self, path: str) -> int | None:
        try:
            return self._ask(path, 2)
        except (OSError, http.client.HTTPException):
            return None

    def _ask(self, path: str, seconds: float) -> int:
        connection = http.client.HTTPConnection(self._local_host, self.port, timeout=seconds)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()
