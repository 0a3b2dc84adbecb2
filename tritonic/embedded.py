"""A real Triton server on this machine's loopback, from the wheel. The Python API for tests, benchmarks and `up`."""

import http.client
import json
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tritonic import triton_log, wheel
from tritonic.child import Child, describe_exit
from tritonic.errors import TritonicError
from tritonic.logfile import LogFile
from tritonic.ports import free_ports


class EmbeddedTritonError(TritonicError):
    """The server ended, or did not get ready in time; the message ends with the telling lines of its log."""


@dataclass(frozen=True, slots=True)
class ModelState:
    """What Triton says of one model.

    `state` is READY, LOADING, UNLOADING or UNAVAILABLE; `reason` says why it is not ready.
    """

    name: str
    version: str
    state: str
    reason: str


class EmbeddedTriton:
    """One Triton server with the project's backends, serving everything in `repository`.

        with EmbeddedTriton("model_repository") as triton:
            client = tritonclient.grpc.InferenceServerClient(triton.grpc_url)

    Ports of 0 are replaced by free ones. The server runs in a session of its own and dies with this process, however
    this process ends. A model that does not load does not stop the others: see `models()`.
    """

    name = "Triton"
    host = "127.0.0.1"

    def __init__(
        self,
        repository: str | Path,
        *,
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        folder: Path | None = None,
        log_path: Path | None = None,
        backends: Sequence[Path] | None = None,
        arguments: Sequence[str] = (),
        ready_timeout: float = 300.0,
        grace: float = 10.0,
    ) -> None:
        """Prepare; nothing runs before `start()` or `with`.

        `folder` holds the backend directory and the log (default: a temporary folder); `log_path` puts the log
        elsewhere. `backends` are folders of Python-based backends (default: the project's). `arguments` go to
        tritonserver after ours. `ready_timeout` and `grace` (between SIGTERM and SIGKILL) are in seconds.
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
        self._known_processes: dict[int, str] = {}
        self.http_port, self.grpc_port, self.metrics_port = http_port, grpc_port, metrics_port

    @property
    def log_path(self) -> Path:
        """Where the server's output goes, and that of its models."""
        return self._log.path

    @property
    def grpc_url(self) -> str:
        """`host:port` of the gRPC endpoint."""
        return f"{self.host}:{self.grpc_port}"

    @property
    def http_url(self) -> str:
        """URL of the HTTP endpoint, without a slash at the end."""
        return f"http://{self.host}:{self.http_port}"

    @property
    def metrics_url(self) -> str:
        """URL of Triton's own Prometheus metrics."""
        return f"http://{self.host}:{self.metrics_port}/metrics"

    @property
    def child(self) -> Child:
        """The running server's processes. Raises RuntimeError before `start()`."""
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
        ports = (self.http_port, self.grpc_port, self.metrics_port)
        chosen = iter(free_ports(ports.count(0), self.host))
        self.http_port, self.grpc_port, self.metrics_port = (port or next(chosen) for port in ports)
        self.folder.mkdir(parents=True, exist_ok=True)
        directory = wheel.assemble(installed, self.folder, self._backends)
        shm_prefix = f"tritonic_{uuid.uuid4().hex[:12]}_"
        argv = [
            str(installed.server),
            f"--model-repository={self.repository}",
            f"--backend-directory={directory}",
            *(f"--{name}-address={self.host}" for name in ("http", "grpc", "metrics")),
            f"--http-port={self.http_port}",
            f"--grpc-port={self.grpc_port}",
            f"--metrics-port={self.metrics_port}",
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
                env=wheel.environment(installed, self.folder),
                cwd=self.folder,
                output=log,
                grace=self._grace,
                shm_prefix=shm_prefix,
            )
        return self

    def wait_ready(self, on_wait: Callable[[float], None] | None = None) -> None:
        """Return when the server answers that it is ready, with every model loaded or failed.

        `on_wait` is called about ten times a second with the seconds that have passed; what it raises goes through.
        Raises EmbeddedTritonError when the server ends, or `ready_timeout` passes.
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
        self._known_processes = self._model_processes()

    def poll(self) -> int | None:
        """The exit status (128 + signal when killed), or None while the server runs."""
        return self.child.poll()

    def last_words(self) -> list[str]:
        """The lines of this run's log that say what went wrong."""
        return triton_log.telling_lines(self._log.lines())

    def is_ready(self) -> bool:
        """Whether the server takes requests now."""
        try:
            return self._ask("GET", "/v2/health/ready")[0] == 200
        except OSError:
            return False

    def models(self) -> list[ModelState]:
        """Every model of the repository and its state. Raises OSError when the server does not answer."""
        _, body = self._ask("POST", "/v2/repository/index")
        return [
            ModelState(row["name"], row.get("version", ""), row.get("state", "UNAVAILABLE"), row.get("reason", ""))
            for row in json.loads(body)
        ]

    def fault(self) -> str | None:
        """Name a model whose own process is gone: Triton goes on calling it ready, and never starts it again."""
        now = self._model_processes()
        gone = {model for pid, model in self._known_processes.items() if pid not in now} - set(now.values())
        self._known_processes = now
        if not gone:
            return None
        try:
            ready = {model.name for model in self.models() if model.state == "READY"}
        except OSError:
            return None
        lost = sorted(gone & ready)  # what was unloaded on purpose has no process either
        return f"lost the process of its model {', '.join(lost)}" if lost else None

    def _model_processes(self) -> dict[int, str]:
        """The processes that run models, by pid, with the model's folder."""
        found = {}
        with suppress(psutil.Error):
            for process in psutil.Process(self.pid).children():
                with suppress(psutil.Error):
                    command = process.cmdline()
                    if command and Path(command[0]).name == "triton_python_backend_stub":
                        found[process.pid] = Path(command[1]).parents[1].name
        return found

    def stop(self) -> None:
        """Stop the server and leave no process of it. Does nothing when it does not run."""
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        """SIGKILL to tritonserver, as an out-of-memory killer would; for fault tests."""
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

    def _ask(self, method: str, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.host, self.http_port, timeout=2)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise OSError(f"Triton's answer is not HTTP: {error}") from error
        finally:
            connection.close()

    def _with_log(self, sentence: str) -> str:
        return "\n".join([sentence, *(f"  {line}" for line in self.last_words())])
