"""A real uvicorn with the HTTP protocol of `serve`, and an application that records its requests."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import uvicorn
from starlette.datastructures import Headers

from gateway.observability.telemetry import valid_request_id
from tritonic.http_server.connections import ConnectionLimits, ConnectionTable
from tritonic.http_server.protocol import BoundedProtocol

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class LiveServer:
    """A running server, with one entry in `requests` for each request that its application got."""

    connections: ConnectionTable
    port: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer with path and size of the body. `/deaf` reads no body, `/slow` waits for a disconnect or `begun`.

        `/stream` answers in pieces, without a content length.
        """
        request = {"method": scope["method"], "path": scope["path"], "headers": scope["headers"], "size": 0}
        request_id = request["id"] = valid_request_id(Headers(scope=scope).get("x-request-id", ""))
        scope.setdefault("state", {})["trace"] = SimpleNamespace(request_id=request_id)
        self.requests.append(request)
        if scope["path"] == "/slow":
            gone = asyncio.ensure_future(_gone(receive))
            waiting = asyncio.ensure_future(self.begun.wait())
            await asyncio.wait([gone, waiting], return_when=asyncio.FIRST_COMPLETED)
            self.ended.append("gone" if gone.done() else "answered")
            gone.cancel()
            waiting.cancel()
        more = scope["path"] not in ("/deaf", "/slow", "/large")
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.ended.append("gone")
                return
            request["size"] += len(message.get("body", b""))
            more = message.get("more_body", False)
        if scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for piece in (b"one ", b"", b"two ", b"three"):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b".", "more_body": False})
            return
        body = b"a" * 8_000_000 if scope["path"] == "/large" else json.dumps([scope["path"], request["size"]]).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def deaf(self) -> asyncio.StreamWriter:
        """Connect a client that reads nothing, with a small receive buffer."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", self.port))
        _, writer = await asyncio.open_connection(sock=sock)
        cast(asyncio.Transport, writer.transport).pause_reading()
        return writer

    async def answer(self, *pieces: bytes, pause: float = 0.02) -> bytes:
        """Send the pieces; return all bytes that come back until the connection is closed."""
        reader, writer = await self.connect()
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
        except ConnectionError:
            pass
        try:
            async with asyncio.timeout(30):
                return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@contextlib.asynccontextmanager
async def live_server(**limits: Any) -> AsyncIterator[LiveServer]:
    running = LiveServer(ConnectionTable(ConnectionLimits(**limits)))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        running.port = listening.getsockname()[1]
        http: Any = partial(BoundedProtocol, connections=running.connections)
        config = uvicorn.Config(running.app, http=http, interface="asgi3", lifespan="off", log_config=None)
        config.timeout_graceful_shutdown = 1
        server = _Quiet(config)
        task = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        yield running
        running.begun.set()
        server.should_exit = True
        await task
