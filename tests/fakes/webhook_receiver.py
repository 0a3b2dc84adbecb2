"""A receiver of webhooks on loopback, with scripted responses."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web


@dataclass(frozen=True, slots=True)
class ReceivedCall:
    """A call of the receiver. `time` is in Unix seconds."""

    path: str
    headers: dict[str, str]
    body: bytes
    time: float

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = orjson.loads(self.body)
        return event


@dataclass(slots=True)
class WebhookReceiver:
    """`calls` are all calls in their order. `responses` are the responses to come, then 204; None never responds."""

    calls: list[ReceivedCall] = field(default_factory=list)
    responses: list[web.Response | None] = field(default_factory=list)
    num_open: int = 0
    most_open: int = 0
    port: int = 0
    _runner: web.AppRunner | None = None

    async def start(self) -> "WebhookReceiver":
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def url(self, path: str = "hook") -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    async def until(self, count: int, seconds: float = 20.0) -> list[ReceivedCall]:
        """Return the calls once there are `count`. Raises `TimeoutError`."""
        async with asyncio.timeout(seconds):
            while len(self.calls) < count:
                await asyncio.sleep(0.02)
        return self.calls

    async def _answer(self, request: web.Request) -> web.Response:
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        try:
            call = ReceivedCall(request.path_qs, dict(request.headers), await request.read(), time.time())
            assert request.method == "POST"
            self.calls.append(call)
            response = self.responses.pop(0) if self.responses else web.Response(status=204)
            if response is None:
                await asyncio.Event().wait()
            assert response is not None
            return response
        finally:
            self.num_open -= 1
