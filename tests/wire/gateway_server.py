"""Runs the real gateway in a real uvicorn, on the event loop of the tests."""

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import uvicorn

from gateway.app import create_app
from gateway.dialects import DIALECTS
from gateway.dialects.dialect import Dialect
from gateway.settings import Settings
from tritonic.http_server.connections import ConnectionLimits, ConnectionTable
from tritonic.http_server.protocol import BoundedProtocol
from tritonic.http_server.proxy_headers import ProxyHeaders

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers: pytest handles Ctrl-C."""
        yield


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """A running gateway: `http` sends raw requests, and `client()` returns OpenAI's client, closed with the gateway."""

    url: str
    http: httpx.AsyncClient
    clients: "list[AsyncOpenAI]" = field(default_factory=list)

    def client(self, **options: Any) -> "AsyncOpenAI":
        from openai import AsyncOpenAI  # takes most of a second, and few processes need it

        client = AsyncOpenAI(**{"base_url": f"{self.url}/v1", "api_key": "none", "max_retries": 0, **options})
        self.clients.append(client)
        return client

    async def until(self, path: str, check: Any, seconds: float = 30.0) -> httpx.Response:
        """GET `path` until `check(response)` is true; return that response. Raises `TimeoutError` after `seconds`."""
        async with asyncio.timeout(seconds):
            while True:
                response = await self.http.get(path)
                if check(response):
                    return response
                await asyncio.sleep(0.02)

    async def ready(self, seconds: float = 30.0) -> None:
        await self.until("/health/ready", lambda response: response.status_code == 200, seconds)

    async def metrics(self) -> dict[str, float]:
        """Return every sample of /metrics: a mapping from `name{labels}` to its value."""
        text = (await self.http.get("/metrics")).text
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in samples}


@contextlib.asynccontextmanager
async def run_gateway(
    *triton_urls: str, wait: bool = True, dialects: Sequence[Dialect] = DIALECTS, **settings: Any
) -> AsyncIterator[RunningGateway]:
    """Run a gateway in front of these Tritons, and `wait` until it is ready.

    `PORT` in `node_api_url` stands for the gateway's port.
    """
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    state = tempfile.TemporaryDirectory(prefix="tritonic-state-")
    options = {"discovery_interval": 0.1, "log_level": "error", "port": port, "state": Path(state.name), **settings}
    if "node_api_url" in options:
        options["node_api_url"] = options["node_api_url"].replace("PORT", str(port))
    configured = Settings(triton_urls=list(triton_urls), **options)
    app: Any = ProxyHeaders(create_app(configured, dialects=dialects))  # type: ignore[arg-type]
    limits = ConnectionLimits(
        configured.max_connections, configured.head_timeout, configured.idle_timeout, configured.send_timeout
    )
    http: Any = partial(BoundedProtocol, connections=ConnectionTable(limits))
    config = uvicorn.Config(app, http=http, log_config=None, access_log=False, proxy_headers=False)
    config.timeout_graceful_shutdown = 2
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    pool = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    try:
        async with httpx.AsyncClient(base_url=url, limits=pool, timeout=20, trust_env=False) as http:
            gateway = RunningGateway(url, http)
            while not server.started:
                assert not running.done(), "the gateway did not start"
                await asyncio.sleep(0.01)
            if wait:
                await gateway.ready()
            try:
                yield gateway
            finally:
                for client in gateway.clients:
                    await client.close()  # else it is closed when it is collected, in the loop of another test
    finally:
        server.should_exit = True
        await running
        listener.close()
        state.cleanup()
