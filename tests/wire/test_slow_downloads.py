"""Clients that download large videos slowly."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.fakes.scripted_model import FilmVideo, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.wire.test_slow_readers import gateway_process

pytestmark = pytest.mark.asyncio(loop_scope="session")

MB = 1_000_000
FILE_BYTES = 50 * MB
READERS = 10
MAX_GROWTH_BYTES = 20 * MB
"""Bytes by which the memory of the gateway may grow while ten clients download files of 50 MB."""


@contextlib.asynccontextmanager
async def downloads(url: str, path: str, count: int) -> AsyncIterator[list[socket.socket]]:
    """Begin `count` downloads, and read nothing."""
    loop = asyncio.get_running_loop()
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    clients = []
    for _ in range(count):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.setblocking(False)
        await loop.sock_connect(client, (host, int(port)))
        await loop.sock_sendall(client, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        clients.append(client)
    yield clients
    for client in clients:
        client.close()


async def made(http: httpx.AsyncClient) -> str:
    """Return the id of a completed video."""
    async with asyncio.timeout(90):
        while (response := await http.post("/v1/videos", json={"prompt": "x"})).status_code == 503:
            pass  # the first task creates the database
        video = response.json()
        while video["status"] in ("queued", "in_progress"):
            await asyncio.sleep(0.1)
            video = (await http.get(f"/v1/videos/{video['id']}")).json()
    assert video["status"] == "completed", video
    return str(video["id"])


async def test_slow_downloads_use_bounded_memory(tmp_path: Path) -> None:
    model = ScriptedModel("film", (FilmVideo(1, padding=FILE_BYTES),), is_video_model=True)
    triton = await FakeTriton([model]).start()
    async with gateway_process(triton, tmp_path) as (_, http):
        path = f"/v1/videos/{await made(http)}/content"
    # The memory in which another process received the video cannot hide what its delivery takes.
    async with gateway_process(triton, tmp_path) as (gateway, http):
        size = int((await http.head(path)).headers["content-length"])
        assert size > FILE_BYTES
        async with http.stream("GET", path) as response:
            assert sum([len(part) async for part in response.aiter_bytes()]) == size
        before = gateway.memory_info().rss
        async with downloads(str(http.base_url), path, READERS) as clients:
            growth, read = await _read_slowly(gateway, clients, before)
        assert growth < MAX_GROWTH_BYTES, growth
        assert MB < read < READERS * size / 2, read
    await triton.stop()


async def _read_slowly(gateway: psutil.Process, clients: list[socket.socket], before: int) -> tuple[int, int]:
    """Read a little from each client now and then. Return the most growth of memory in bytes, and the bytes read."""
    loop = asyncio.get_running_loop()
    growth = read = 0
    for _ in range(30):
        for client in clients:
            read += len(await loop.sock_recv(client, 65_536))
        await asyncio.sleep(0.05)
        growth = max(growth, gateway.memory_info().rss - before)
    return growth, read
