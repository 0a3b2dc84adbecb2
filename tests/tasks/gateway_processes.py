"""Real gateways in processes of their own, which tests can kill."""

import asyncio
import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]


class TaskGateway:
    """A gateway with a state folder of its own. A restart keeps its port."""

    def __init__(self, state: Path, triton_url: str, tasks: str, **settings: Any) -> None:
        state.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        variables = {
            "state": state,
            "triton_urls": triton_url,
            "tasks": tasks,
            "port": port,
            "discovery_interval": 0.2,
            **settings,
        }
        self._env = os.environ | {f"TRITONIC_{name.upper()}": str(value) for name, value in variables.items()}
        self._log = state / "gateway.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False)

    async def start(self) -> "TaskGateway":
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "tests.tasks.gateway_main"]
            self._process = subprocess.Popen(command, cwd=ROOT, env=self._env, stdout=log, stderr=log)
        async with asyncio.timeout(60):
            while True:
                assert self._process.poll() is None, self.log_tail()
                try:
                    if (await self.http.get("/health/ready")).status_code == 200:
                        return self
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        """Send SIGKILL, and wait for the end."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    async def stop(self, seconds: float = 30.0) -> int:
        """Send SIGTERM, and return the exit status."""
        assert self._process is not None
        self._process.terminate()
        return await asyncio.to_thread(self._process.wait, seconds)

    async def close(self) -> None:
        await self.http.aclose()
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def log_tail(self) -> str:
        return self._log.read_text()[-3000:]

    async def tasks(self) -> list[dict[str, Any]]:
        return (await self.http.get("/tests/tasks")).raise_for_status().json()

    async def submit(self, prompt: str, model: str = "painter", webhook_url: str = "") -> str:
        """Submit a task; after a 503, retry as `retry-after` says, with the same idempotency key."""
        headers = {"Idempotency-Key": uuid.uuid4().hex, **({"Webhook-URL": webhook_url} if webhook_url else {})}
        async with asyncio.timeout(60):
            while True:
                response = await self.http.post(
                    "/tests/tasks", json={"model": model, "prompt": prompt}, headers=headers, timeout=40
                )
                if response.status_code != 503:
                    return response.raise_for_status().json()["id"]
                await asyncio.sleep(int(response.headers["retry-after"]))
