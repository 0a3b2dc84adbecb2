"""Runs Triton and a gateway for a benchmark."""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tritonic.embedded import EmbeddedTriton
from tritonic.gateway_process import GatewayProcess
from tritonic.ports import free_ports


@dataclass(frozen=True, slots=True)
class Deployment:
    """Addresses and processes of a running Triton and its gateway."""

    model: str
    triton_url: str
    """`host:port` of gRPC."""
    metrics_url: str
    gateway_url: str
    triton_pid: int
    gateway_pid: int


def wait_for_models(gateway: GatewayProcess, timeout: float = 60.0) -> None:
    """Wait until the gateway has found a model. Raises `TimeoutError`."""
    deadline = time.monotonic() + timeout
    while not gateway.has_models():
        if gateway.poll() is not None or time.monotonic() > deadline:
            log = "\n".join(gateway.last_log_lines())
            raise TimeoutError(f"The gateway found no model within {timeout:.0f} s: {log}")
        time.sleep(0.05)


@contextlib.contextmanager
def deploy(repository: Path, model: str) -> Iterator[Deployment]:
    """Serve all models of `repository` while the block runs; `model` is the measured one."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        triton = stack.enter_context(EmbeddedTriton(repository))
        triton.share_secret()
        gateway = GatewayProcess("127.0.0.1", free_ports(1)[0], triton.grpc_url, folder / "gateway.log")
        gateway.start()
        stack.callback(gateway.stop)
        gateway.wait_live()
        wait_for_models(gateway)
        assert triton.pid is not None
        yield Deployment(model, triton.grpc_url, triton.metrics_url, gateway.url, triton.pid, gateway.child.pid)


@contextlib.contextmanager
def only(repository: Path, models: Sequence[str]) -> Iterator[Path]:
    """Yield a repository with these models alone, so that no other model uses memory and cores while it is measured."""
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            (Path(folder) / model).symlink_to((repository / model).resolve())
        yield Path(folder)
