"""A Triton with one repository and a gateway in front of it, for the time of a benchmark."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tritonic.embedded import EmbeddedTriton
from tritonic.gateway_process import GatewayProcess
from tritonic.ports import free_ports


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where it is, and the processes that do it."""

    model: str
    triton_url: str
    """`host:port` of gRPC."""
    metrics_url: str
    gateway_url: str
    triton_pid: int
    gateway_pid: int


def wait_for_models(front: GatewayProcess, timeout: float = 60.0) -> None:
    """Return when the gateway has found a model. Raises `TimeoutError`."""
    deadline = time.monotonic() + timeout
    while not front.has_models():
        if front.poll() is not None or time.monotonic() > deadline:
            words = "\n".join(front.last_log_lines())
            raise TimeoutError(f"The gateway found no model within {timeout:.0f} s: {words}")
        time.sleep(0.05)


@contextlib.contextmanager
def deploy(repository: Path, model: str) -> Iterator[Deployment]:
    """Serve all models of `repository`; `model` is the one that is measured."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        triton = stack.enter_context(EmbeddedTriton(repository))
        triton.share_secret()
        front = GatewayProcess("127.0.0.1", free_ports(1)[0], triton.grpc_url, folder / "gateway.log")
        front.start()
        stack.callback(front.stop)
        front.wait_live()
        wait_for_models(front)
        assert triton.pid is not None
        yield Deployment(model, triton.grpc_url, triton.metrics_url, front.url, triton.pid, front.child.pid)
