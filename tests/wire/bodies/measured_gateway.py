"""Runs a gateway in a process that measures its own event loop, CPU time and memory."""

import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost and the response of one request.

    `held`, `starved` and `used` are CPU seconds, and `grown` is in bytes; `tests.wire.bodies.measured_process` defines
    them.
    """

    held: float
    starved: float
    used: float
    grown: int
    status: int
    answer: str


@dataclass(frozen=True, slots=True)
class MeasuredGateway:
    """A running gateway, reached through `http`."""

    http: httpx.AsyncClient
    process: asyncio.subprocess.Process

    async def cost(
        self, path: str, content: bytes, headers: Mapping[str, str] = {"content-type": "application/json"}
    ) -> Cost:
        """Send a request, and return its cost."""
        await self._measure()
        response = await self.http.post(path, content=content, headers=dict(headers))
        return Cost(**await self._measure(), status=response.status_code, answer=response.text)

    async def _measure(self) -> dict[str, Any]:
        """Return the measurement that ends now, and begin the next one."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(b"\n")
        measured: dict[str, Any] = json.loads(await self.process.stdout.readline())
        return measured


@contextlib.asynccontextmanager
async def run_measured_gateway(*triton_urls: str, **settings: object) -> AsyncIterator[MeasuredGateway]:
    """Run a gateway in front of these Tritons until the block ends."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as state:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        options = {"triton_urls": ",".join(triton_urls), "port": port, "state": state, "log_level": "error", **settings}
        variables = {f"TRITONIC_{name.upper()}": str(value) for name, value in options.items()}
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
