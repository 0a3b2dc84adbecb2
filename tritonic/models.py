"""Lists, loads and unloads the models of a running Triton over gRPC."""

import json
import sys
from dataclasses import dataclass
from typing import Any

import grpc
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gateway.triton.client import SECRET_HEADER
from tritonic.errors import TritonicError
from tritonic.running_triton import TritonEndpoint

TIMEOUT_SECONDS = 10.0
LOAD_TIMEOUT_SECONDS = 600.0


_CHANNEL_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),  # a starting server is ready soon
    ("grpc.max_reconnect_backoff_ms", 500),
]


class TritonCallError(TritonicError):
    """Triton did not answer or refused a call; the message says why."""


@dataclass(frozen=True, slots=True)
class ModelState:
    """The state of one model in Triton's repository index.

    `state` is READY, LOADING, UNLOADING or UNAVAILABLE; `reason` says why it is not ready.
    """

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model of the repository, as its `config.pbtxt` describes it; "" for values that are missing or not loaded."""

    name: str
    served_name: str
    state: str
    reason: str
    operations: tuple[str, ...] = ()
    context_length: str = ""
    precision: str = ""
    backend: str = ""


class ModelRepositoryClient:
    """A gRPC client for the model repository of one Triton."""

    def __init__(self, url: str, secret: str = "") -> None:
        """`url` is `host:port` or `unix:/path`; `secret` is for the protocols that the server restricts."""
        self.url = url
        self._metadata = [(SECRET_HEADER, secret)] if secret else None
        self._channel = grpc.insecure_channel(url, options=_CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def __enter__(self) -> "ModelRepositoryClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def is_ready(self, timeout: float = 2.0) -> bool:
        """Return whether the server accepts requests now."""
        try:
            return bool(self._stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=timeout).ready)
        except grpc.RpcError:
            return False

    def ready_future(self) -> Any:
        """Send the same call without waiting. Return its `grpc.Future`, which has no deadline."""
        return self._stub.ServerReady.future(service_pb2.ServerReadyRequest())

    def states(self, timeout: float = TIMEOUT_SECONDS) -> list[ModelState]:
        """Return the state of every model in the repository. Raises TritonCallError."""
        index = self._call("RepositoryIndex", service_pb2.RepositoryIndexRequest(), timeout)
        return [ModelState(row.name, row.version, row.state or "UNAVAILABLE", row.reason) for row in index.models]

    def list_models(self) -> list[ModelInfo]:
        """Return a description of every model, sorted by name. Raises TritonCallError."""
        return sorted((self._describe(state) for state in self.states()), key=lambda model: model.name)

    def load(self, name: str) -> None:
        """Load a model, or reload it after its files changed. Raises TritonCallError with Triton's reason."""
        self._call("RepositoryModelLoad", service_pb2.RepositoryModelLoadRequest(model_name=name), LOAD_TIMEOUT_SECONDS)

    def unload(self, name: str) -> None:
        """Unload a model. Raises TritonCallError when the repository has no model of that name."""
        if name not in {model.name for model in self.list_models()}:
            raise TritonCallError(f"There is no model {name!r} in the repository of the Triton at {self.url}.")
        self._call(
            "RepositoryModelUnload", service_pb2.RepositoryModelUnloadRequest(model_name=name), LOAD_TIMEOUT_SECONDS
        )

    def _describe(self, row: ModelState) -> ModelInfo:
        description = ModelInfo(row.name, row.name, row.state, row.reason)
        if row.state != "READY":
            return description
        request = service_pb2.ModelConfigRequest(name=row.name, version=row.version)
        config = self._call("ModelConfig", request).config
        parameters = {key: value.string_value for key, value in config.parameters.items()}
        try:
            operations = tuple(str(name) for name in json.loads(parameters.get("operations", "[]")))
        except (ValueError, TypeError):
            operations = ()
        return ModelInfo(
            name=row.name,
            served_name=parameters.get("served_name", row.name),
            state=row.state,
            reason=row.reason,
            operations=operations,
            context_length=parameters.get("context_length", ""),
            precision=parameters.get("precision", ""),
            backend=config.backend or config.platform,
        )

    def _call(self, method: str, request: Any, timeout: float = TIMEOUT_SECONDS) -> Any:
        try:
            return getattr(self._stub, method)(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            if "This protocol is restricted" in (error.details() or ""):
                raise TritonCallError(
                    f"The Triton at {self.url} restricts this. TRITONIC_TRITON_SECRET must be the secret that it was "
                    "started with, --grpc-restricted-protocol=…:tritonic=SECRET."
                ) from None
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise TritonCallError(f"No Triton answers at {self.url}. Start one with `tritonic up`.") from None
            raise TritonCallError(f"The Triton at {self.url} refuses: {error.details()}") from None


def show(servers: list[TritonEndpoint], console: Console) -> None:
    """Print a table of the models of every server. Raises TritonCallError."""
    for server in servers:
        with ModelRepositoryClient(server.url, server.secret) as client:
            models = client.list_models()
        columns = ("model", "served as", "state", "operations", "context", "precision", "backend")
        table = Table(*columns, title=server.url, box=SIMPLE)
        for model in models:
            state = f"[{'green' if model.state == 'READY' else 'red'}]{model.state}[/]"
            operations = ", ".join(model.operations)
            cells = (model.served_name, state, operations, model.context_length, model.precision, model.backend)
            table.add_row(model.name, *cells)
        # Users copy the names and grep for them: lines that the terminal wraps are better than truncated names.
        unlimited = console.options.update(width=sys.maxsize)
        table.width = Measurement.get(console, unlimited, table).maximum
        console.print(table, crop=False)
        for model in models:
            if model.reason:
                console.print(f"[bold]{escape(model.name)}[/]: {escape(model.reason.strip())}")
        if not models:
            console.print("The repository holds no model; build one with `tritonic build`.")
