"""A Triton that tests may break. It has a good model and a broken one, and keeps its ports when it restarts."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.triton.model_copies import install_copy
from tests.triton.text_client import NAME
from tritonic.embedded import EmbeddedTriton
from tritonic.supervisor import SupervisedComponent, supervise

BROKEN = "broken"


class BreakableTriton:
    """A Triton that runs after `start` and after each `restart`."""

    def __init__(self, model: Path, repository: Path) -> None:
        install_copy(model, repository, NAME)
        weights = install_copy(model, repository, BROKEN) / "1" / "model.onnx"
        first_half = weights.read_bytes()[: weights.stat().st_size // 2]
        weights.unlink()  # it is a link to the good model's
        weights.write_bytes(first_half)
        self.triton = EmbeddedTriton(repository)

    async def start(self) -> None:
        self.triton.start()
        await asyncio.to_thread(self.triton.wait_ready)

    async def stop(self) -> None:
        self.triton.kill()  # a normal stop waits for streams that never end
        await asyncio.to_thread(self.triton.__exit__, None, None, None)

    async def restart(self) -> None:
        """Start the server again, on the same ports."""
        self.triton.kill()
        await asyncio.to_thread(self.triton.stop)
        await self.start()

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[list[str]]:
        """Supervise the server as `up` does, and return the messages to the user."""
        messages: list[str] = []
        stopping = threading.Event()
        supervising = asyncio.create_task(
            asyncio.to_thread(supervise, [SupervisedComponent(self.triton, messages.append)], stopping)
        )
        try:
            yield messages
        finally:
            stopping.set()
            await supervising

    def model_pid(self) -> int:
        """Return the process that runs the model."""
        for pid in self.triton.child.processes():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"triton_python_backend_stub") and NAME.encode() in words[1]:
                return pid
        raise AssertionError("the model has no process")

    def kill_model_process(self) -> None:
        """Send SIGKILL to the process that runs the model."""
        os.kill(self.model_pid(), signal.SIGKILL)
