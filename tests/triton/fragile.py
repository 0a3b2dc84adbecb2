"""A Triton of its own for tests that break it: a good model and a broken one, on ports that it keeps."""

import asyncio
import os
import signal
from pathlib import Path

from tests.triton.asking import NAME
from tests.triton.installing import install_copy
from tritonic.embedded import EmbeddedTriton

BROKEN = "broken"


class Fragile:
    """Runs after `start`, and after each `mend`."""

    def __init__(self, model: Path, repository: Path) -> None:
        self._repository = repository
        install_copy(model, repository, NAME)
        onnx = install_copy(model, repository, BROKEN) / "1" / "model.onnx"
        half = onnx.read_bytes()[: onnx.stat().st_size // 2]
        onnx.unlink()  # it is a link to the good model's
        onnx.write_bytes(half)
        self.triton = EmbeddedTriton(repository)

    async def start(self) -> None:
        self.triton.start()
        await asyncio.to_thread(self.triton.wait_ready)

    async def stop(self) -> None:
        await asyncio.to_thread(self.triton.__exit__, None, None, None)

    async def mend(self) -> None:
        """Start it anew on the ports that it had."""
        old = self.triton
        await self.stop()
        ports = {"http_port": old.http_port, "grpc_port": old.grpc_port, "metrics_port": old.metrics_port}
        self.triton = EmbeddedTriton(self._repository, **ports)
        await self.start()

    def kill_process_of_model(self) -> None:
        """SIGKILL to the process in which the model runs."""
        for pid in self.triton.child.processes():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"triton_python_backend_stub") and NAME.encode() in words[1]:
                os.kill(pid, signal.SIGKILL)
                return
        raise AssertionError("the model has no process")
