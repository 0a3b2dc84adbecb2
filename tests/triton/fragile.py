"""A separate Triton for tests that break it: a good model and a broken one, on fixed ports."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.triton.asking import NAME
from tests.triton.installing import install_copy
from tritonic.embedded import EmbeddedTriton
from tritonic.supervisor import SupervisedComponent, supervise

BROKEN = "broken"


class Fragile:
    """A Triton that runs after `start` and after each `mend`."""

    def __init__(self, model: Path, repository: Path) -> None:
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
        self.triton.kill()  # it need not wait for streams that nobody will end
        await asyncio.to_thread(self.triton.__exit__, None, None, None)

    async def mend(self) -> None:
        """Start the server again, on the same ports."""
        self.triton.kill()
        await asyncio.to_thread(self.triton.stop)
        await self.start()

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[list[str]]:
        """Supervise the server as `up` does, and return the messages to the user."""
        said: list[str] = []
        stopping = threading.Event()
        supervising = asyncio.create_task(
            asyncio.to_thread(supervise, [SupervisedComponent(self.triton, said.append)], stopping)
        )
        try:
            yield said
        finally:
            stopping.set()
            await supervising

    def process_of_model(self) -> int:
        """Return the process that runs the model."""
        for pid in self.triton.child.processes():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"triton_python_backend_stub") and NAME.encode() in words[1]:
                return pid
        raise AssertionError("the model has no process")

    def kill_process_of_model(self) -> None:
        """Send it SIGKILL."""
        os.kill(self.process_of_model(), signal.SIGKILL)
