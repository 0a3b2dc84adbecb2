"""A gateway in a process of its own whose loop is watched while it answers."""

import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import httpx


@dataclass(frozen=True, slots=True)
class Cost:
    """What one request cost: CPU seconds and bytes, as `tests.wire.bodies.measured_process` says, and how it was
    answered."""

    held: float
    starved: float
    used: float
    grown: int
    status: int
    answer: str


@dataclass(frozen=True, slots=True)
class MeasuredGateway:
    """A gateway that runs, at `http`."""

    http: httpx.AsyncClient
    process: asyncio.subprocess.Process

    async def cost(
        self, path: str, content: bytes, headers: Mapping[str, str] = {"content-type": "application/json"}
    ) -> Cost:
        """Ask, and return what it cost."""
        await self._told()
        response = await self.http.post(path, content=content, headers=dict(headers))
        return Cost(**await self._told(), status=response.status_code, answer=response.text)

    async def _told(self) -> dict[str, float]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(b"\n")
        told: dict[str, float] = json.loads(await self.process.stdout.readline())
        return told


@contextlib.asynccontextmanager
async def run_measured_gateway(*triton_urls: str, **settings: object) -> AsyncIterator[MeasuredGateway]:
    """Run a gateway before these Tritons until the end of the block."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as state:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        given = {"triton_urls": ",".join(triton_urls), "port": port, "state": state, "log_level": "error", **settings}
        variables = {f"TRITONIC_{name.upper()}": str(value) for name, value in given.items()}
        free.close()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.wire.bodies.measured_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **variables},
        )
        try:
            url = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as http, asyncio.timeout(300):
                while True:
                    with contextlib.suppress(httpx.TransportError):
                        if (await http.get("/health/ready")).status_code == 200:
                            break
                    await asyncio.sleep(0.05)
                yield MeasuredGateway(http, process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()
