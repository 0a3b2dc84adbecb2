"""A Triton server on loopback, from the nvidia-pytriton wheel: the Python API for `up`, tests and benchmarks."""

import os
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tritonic import triton_address, triton_log, wheel
from tritonic.child import Child, describe_exit
from tritonic.errors import TritonicError
from tritonic.logfile import LogFile
from tritonic.models import ModelRepositoryClient, ModelState
from tritonic.ports import free_ports
from tritonic.triton_address import SocketFolder
from tritonic.triton_health import TritonHealth


class EmbeddedTritonError(TritonicError):
    """The server ended or was not ready in time; the message ends with the error lines of its log."""


class EmbeddedTriton:
    """One Triton server with the project's backends, serving everything in `repository`.

        with EmbeddedTriton("model_repository") as triton:
            client = tritonclient.grpc.InferenceServerClient(triton.grpc_url)

    A port of 0 becomes a free port. The server runs in a session of its own and ends with this process, however this
    process ends. A model that fails to load does not stop the others: see `models()`.

    Calls that load code into the server, share memory with it or list its models need `secret`
    (`triton_address.RESTRICTED_PROTOCOLS`). Gateways in front of it need the secret too: see `share_secret()`.
    """

    name = "Triton"
    host = triton_address.HOST

    def __init__(
        self,
        repository: str | Path,
        *,
        http_port: int | None = None,
        grpc_port: int | None = 0,
        metrics_port: int = 0,
        secret: str | None = None,
        folder: Path | None = None,
        log_path: Path | None = None,
        backends: Sequence[Path] | None = None,
        arguments: Sequence[str] = (),
        ready_timeout: float = 300.0,
        grace: float = 10.0,
    ) -> None:
        """Prepare; nothing runs before `start()` or `with`.

        An `http_port` of None keeps the HTTP endpoint closed. With a `grpc_port` of None, gRPC listens on a Unix
        socket in `folder` that only this user can open. A `secret` of None creates one; "" restricts nothing.
        `folder` holds the backend directory and the log (default: a temporary folder); `log_path` puts the log
        elsewhere. `backends` are folders of Python-based backends (default: the project's). `arguments` are added to
        the command line of tritonserver. `ready_timeout` and `grace` (from SIGTERM to SIGKILL) are in seconds.
        """
        self.repository = Path(repository).resolve()
        self._temporary = tempfile.TemporaryDirectory(prefix="tritonic-") if folder is None else None
        self.folder = Path(self._temporary.name) if self._temporary else Path(folder or "").resolve()
        self._log = LogFile(log_path or self.folder / "triton.log")
        self._backends = list(backends) if backends is not None else wheel.project_backends()
        self._arguments = list(arguments)
        self._ready_timeout = ready_timeout
        self._grace = grace
        self._child: Child | None = None
        self._client: ModelRepositoryClient | None = None
        self._health: TritonHealth | None = None
        self._socket = SocketFolder(self.folder) if grpc_port is None else None
        self.secret = triton_address.new_secret() if secret is None else secret
        # Triton adds a colon and a port to the path of a socket, too.
        self.http_port, self.grpc_port, self.metrics_port = http_port, 1 if self._socket else grpc_port, metrics_port

    @property
    def log_path(self) -> Path:
        """The log file of the server and its models."""
        return self._log.path

    @property
    def grpc_url(self) -> str:
        """`host:port` of the gRPC endpoint, or `unix:/path`."""
        return f"{self._socket.socket if self._socket else self.host}:{self.grpc_port}"

    @property
    def http_url(self) -> str:
        """URL of the HTTP endpoint, without a slash at the end. Raises RuntimeError when the endpoint is closed."""
        if self.http_port is None:
            raise RuntimeError("This Triton's HTTP endpoint is closed: give it an http_port.")
        return f"http://{self.host}:{self.http_port}"

    @property
    def metrics_url(self) -> str:
        """URL of Triton's own Prometheus metrics."""
        return f"http://{self.host}:{self.metrics_port}/metrics"

    @property
    def child(self) -> Child:
        """The server's process. Raises RuntimeError before `start()`."""
        if self._child is None:
            raise RuntimeError("This Triton has not been started.")
        return self._child

    @property
    def pid(self) -> int:
        """Process id of tritonserver."""
        return self.child.pid

    def start(self) -> Self:
        """Start the server without waiting until it is ready. Raises TritonMissingError, ChildError, OSError."""
        installed = wheel.find_wheel()
        chosen = iter(free_ports((self.http_port, self.grpc_port, self.metrics_port).count(0), self.host))
        self.http_port = next(chosen) if self.http_port == 0 else self.http_port
        self.grpc_port, self.metrics_port = self.grpc_port or next(chosen), self.metrics_port or next(chosen)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._socket:
            self._socket.make()
        directory = wheel.assemble_backends(installed, self.folder, self._backends)
        shm_prefix = f"tritonic_{uuid.uuid4().hex[:12]}_"
        argv = [
            str(installed.server),
            f"--model-repository={self.repository}",
            f"--backend-directory={directory}",
            *triton_address.server_options(
                self._socket.socket if self._socket else self.host,
                self.http_port,
                self.grpc_port,
                self.metrics_port,
                self.secret,
            ),
            "--model-control-mode=explicit",
            "--load-model=*",
            "--exit-on-error=false",
            "--strict-readiness=false",
            f"--exit-timeout-secs={max(1, int(self._grace) - 2)}",
            f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
            *self._arguments,
        ]
        with self._log.open() as log:
            self._child = Child(
                argv,
                env=wheel.server_environment(installed, self.folder),
                cwd=self.folder,
                output=log,
                grace=self._grace,
                shm_prefix=shm_prefix,
            )
        self._disconnect()
        self._client = ModelRepositoryClient(self.grpc_url, self.secret)
        return self

    def wait_ready(self, on_wait: Callable[[float], None] | None = None) -> None:
        """Wait until the server reports that it is ready: every model has loaded or failed.

        Calls `on_wait` about ten times a second with the seconds that have passed; its exceptions pass through.
        Raises EmbeddedTritonError when the server ends, or after `ready_timeout`.
        """
        started = time.monotonic()
        while not self.is_ready():
            waited = time.monotonic() - started
            status = self.poll()
            if status is not None:
                raise EmbeddedTritonError(self._with_log(f"Triton {describe_exit(status)} before it was ready."))
            if waited > self._ready_timeout:
                raise EmbeddedTritonError(
                    self._with_log(f"Triton was not ready after {self._ready_timeout:.0f} seconds.")
                )
            if on_wait is not None:
                on_wait(waited)
            time.sleep(0.1)

    def poll(self) -> int | None:
        """Return the exit status (128 + signal when killed), or None while the server runs."""
        return self.child.poll()

    def last_log_lines(self) -> list[str]:
        """Return the error lines of this run's log."""
        return triton_log.error_lines(self._log.lines())

    def rotate_log(self) -> None:
        """Rotate the log if it is large."""
        self._log.rotate_if_large()

    def is_ready(self) -> bool:
        """Return whether the server accepts requests now."""
        ready = self._models.is_ready()
        if ready and self._health is None:
            self._health = TritonHealth(self.pid, self._models)  # records the model processes that exist now
        return ready

    def models(self) -> list[ModelState]:
        """Return the state of every model in the repository. Raises TritonCallError when the server does not answer."""
        return self._models.states()

    def fault(self) -> str | None:
        """Run one health check (`TritonHealth`). Return why the server must be restarted, or None."""
        return self._health.fault() if self._health is not None else None

    def share_secret(self) -> None:
        """Set TRITONIC_TRITON_SECRET in this environment, which gateways started by this process inherit."""
        os.environ["TRITONIC_TRITON_SECRET"] = self.secret

    @property
    def _models(self) -> ModelRepositoryClient:
        if self._client is None:
            raise RuntimeError("This Triton has not been started.")
        return self._client

    def _disconnect(self) -> None:
        self._health = None
        if self._client is not None:
            self._client.close()
            self._client = None

    def stop(self) -> None:
        """Stop the server and all its processes. Do nothing when it does not run."""
        if self._child is not None:
            self._disconnect()
            self._child.stop()

    def kill(self) -> None:
        """Send SIGKILL to tritonserver, as the kernel does when memory runs out. For fault tests."""
        self.child.kill()

    def __enter__(self) -> Self:
        try:
            self.start().wait_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _with_log(self, sentence: str) -> str:
        return "\n".join([sentence, *(f"  {line}" for line in self.last_log_lines())])
