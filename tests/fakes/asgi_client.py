"""A real uvicorn around a small ASGI application, and a socket that has sent it one request."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn


@contextlib.asynccontextmanager
async def requesting_client(app: Any, request: bytes) -> AsyncIterator[socket.socket]:
    """Serve `app` until the end of the block. Yields a non-blocking socket on which `request` was sent."""
    with socket.socket() as listening, socket.socket() as client:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=0))
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        running = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, listening.getsockname())
        await loop.sock_sendall(client, request)
        try:
            yield client
        finally:
            server.should_exit = True
            client.close()
            await running
