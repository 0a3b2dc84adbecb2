"""Clients that read their streams slowly or not at all, while models generate much."""

import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.fakes.scripted_model import Say, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import CHAT, STREAM_ROUTES, TEXT_STREAM, TextRoute, chat

pytestmark = pytest.mark.asyncio(loop_scope="session")

PIECE = 16 * 1024
PIECES = 512
"""8 MB of text for each stream."""
MB = 1_000_000
MAX_GENERATED_MB = 2
"""Megabytes that a model can generate for a client that reads nothing, before backpressure stops it."""


class Flood(tuple[Say, ...]):
    """A script that generates much text without memory, and counts how much the model generated."""

    generated = 0

    def __iter__(self) -> Iterator[Say]:
        for _ in range(PIECES):
            self.generated += PIECE
            yield Say("x" * PIECE)
        yield Say("", "stop")


@contextlib.asynccontextmanager
async def run_flood() -> AsyncIterator[tuple[FakeTriton, Flood]]:
    flood = Flood()
    triton = await FakeTriton([ScriptedModel("flood", flood), ScriptedModel("hello")]).start()
    yield triton, flood
    await triton.stop()


class Reader:
    """A client that requests the flood, and reads when the test says so."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    @classmethod
    async def connect(cls, url: str, route: TextRoute = TEXT_STREAM) -> "Reader":
        loop = asyncio.get_running_loop()
        host, _, port = url.removeprefix("http://").partition(":")
        connected = socket.socket()
        connected.setblocking(False)
        await loop.sock_connect(connected, (host, int(port)))
        body = json.dumps(route.body("flood")).encode()
        head = f"POST {route.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        await loop.sock_sendall(connected, head.encode() + body)
        return cls(connected)

    async def read(self) -> int:
        data = await asyncio.get_running_loop().sock_recv(self._socket, 65536)
        assert data, "the gateway hung up"
        return len(data)

    def close(self) -> None:
        self._socket.close()


@contextlib.asynccontextmanager
async def readers(
    url: str, triton: FakeTriton, count: int, route: TextRoute = TEXT_STREAM
) -> AsyncIterator[list[Reader]]:
    """Run `count` clients that read nothing."""
    clients = [await Reader.connect(url, route) for _ in range(count)]
    async with asyncio.timeout(30):
        while triton.active < count:
            await asyncio.sleep(0.01)
    yield clients
    for reader in clients:
        reader.close()
    async with asyncio.timeout(30):
        while triton.active:
            await asyncio.sleep(0.01)


async def wait_until_idle(flood: Flood, seconds: float = 30.0) -> None:
    """Wait until the model has generated nothing for a while."""
    async with asyncio.timeout(seconds):
        before = -1
        while before != flood.generated:
            before = flood.generated
            await asyncio.sleep(0.5)


async def median_latency_ms(http: httpx.AsyncClient, count: int = 60) -> float:
    """Return the median latency of a short answer, in milliseconds."""
    latencies = []
    for _ in range(count):
        began = time.perf_counter()
        assert (await http.post(CHAT.path, json=CHAT.body("hello"))).status_code == 200
        latencies.append((time.perf_counter() - began) * 1000)
    return statistics.median(latencies)


@contextlib.asynccontextmanager
async def gateway_process(triton: FakeTriton, folder: Path) -> AsyncIterator[tuple[psutil.Process, httpx.AsyncClient]]:
    """Run a gateway in a process of its own, to measure its memory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "TRITONIC_PORT": str(port),
        "TRITONIC_TRITON_URLS": triton.url,
        "TRITONIC_STATE": str(folder),
        "TRITONIC_LOG_LEVEL": "error",
    }
    # Not asyncio's, which forks under uvloop: gRPC's threads in this process do not take that well.
    running = subprocess.Popen([sys.executable, "-m", "tritonic", "serve"], env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as http:
            async with asyncio.timeout(30):
                while True:
                    with contextlib.suppress(httpx.TransportError):
                        if (await http.get("/health/ready")).status_code == 200:
                            break
                    await asyncio.sleep(0.1)
            yield psutil.Process(running.pid), http
    finally:
        running.kill()
        running.wait()


async def test_unread_streams_use_bounded_memory(tmp_path: Path) -> None:
    """A client that reads nothing costs the gateway half a megabyte, however much its model generates."""
    count = 24
    async with run_flood() as (triton, flood), gateway_process(triton, tmp_path) as (gateway, http):
        async with http.stream("POST", TEXT_STREAM.path, json=TEXT_STREAM.body("flood")) as response:
            assert sum([len(part) async for part in response.aiter_bytes()]) > PIECE * PIECES
        await median_latency_ms(http)
        before, generated = gateway.memory_info().rss, flood.generated
        async with readers(str(http.base_url), triton, count):
            await wait_until_idle(flood)
            growth = gateway.memory_info().rss - before
            # The rest of the generated text is in kernel buffers at both ends.
            assert (flood.generated - generated) / count < MAX_GENERATED_MB * MB and growth / count < MB, (
                flood.generated - generated,
                growth,
            )


@pytest.mark.parametrize("route", STREAM_ROUTES, ids=str)
async def test_unread_streams_do_not_slow_other_requests(route: TextRoute) -> None:
    async with run_flood() as (triton, flood), run_gateway(triton.url) as gateway:
        idle = await cpu_share()
        async with readers(gateway.url, triton, 32, route):
            await wait_until_idle(flood)
            # Unread streams use no CPU time: the process, with the scripted Triton in it, has little more to do.
            assert await cpu_share() - idle < 0.5
            assert await median_latency_ms(gateway.http, 20) < 30_000
            async with asyncio.timeout(30):  # the last of the short answers may be just ending
                while triton.active != 32:
                    await asyncio.sleep(0.01)
            # All streams share one connection to Triton: one that is read continues while others are not read.
            async with (
                asyncio.timeout(30),
                gateway.http.stream("POST", route.path, json=route.body("flood")) as response,
            ):
                assert sum([len(part) async for part in response.aiter_bytes()]) > PIECE * PIECES


async def cpu_share() -> float:
    """Return the share of a core that this process uses, with the gateways of other tests in it."""
    before, started = sum(psutil.Process().cpu_times()[:2]), time.monotonic()
    await asyncio.sleep(0.5)
    return (sum(psutil.Process().cpu_times()[:2]) - before) / (time.monotonic() - started)


async def test_a_slow_reader_gets_the_whole_stream() -> None:
    async with run_flood() as (triton, _), run_gateway(triton.url, send_timeout=1) as gateway:
        async with readers(gateway.url, triton, 1) as (reader,):
            read = 0
            while read < PIECE * PIECES:
                read += await reader.read()
                if read < 4 * MB:
                    await asyncio.sleep(0.02)
        assert read > PIECE * PIECES


@pytest.mark.parametrize("route", STREAM_ROUTES, ids=str)
async def test_a_client_that_reads_nothing_is_disconnected_and_its_model_cancelled(route: TextRoute) -> None:
    async with run_flood() as (triton, _), run_gateway(triton.url, send_timeout=0.4) as gateway:
        async with readers(gateway.url, triton, 2, route):
            began = time.monotonic()
            async with asyncio.timeout(30):
                while triton.active:
                    await asyncio.sleep(0.01)
            assert time.monotonic() - began >= 0.3
            assert all(call.cancelled_at for call in triton.calls)
            counted = await gateway.metrics()
            assert counted[f'tritonic_cancellations_total{{model="flood",route="{route.path}"}}'] == 2
            assert counted[f'tritonic_in_flight{{model="flood",route="{route.path}"}}'] == 0
        assert (await chat(gateway)).status_code == 200


async def test_a_client_of_a_slow_model_is_not_disconnected(triton: FakeTriton) -> None:
    """A client keeps its stream while the model generates nothing for longer than `send_timeout`."""
    async with run_gateway(triton.url, send_timeout=0.05) as gateway:
        response = await gateway.http.post(TEXT_STREAM.path, json=TEXT_STREAM.body("steady"))
        assert TEXT_STREAM.text(response) == "tick tick tick tick tock"


async def test_a_fast_stream_does_not_block_other_requests(triton: FakeTriton) -> None:
    gateway: RunningGateway
    async with run_flood() as (fast, _), run_gateway(fast.url) as gateway:

        async def take() -> None:
            async with gateway.http.stream("POST", TEXT_STREAM.path, json=TEXT_STREAM.body("flood")) as response:
                async for _ in response.aiter_bytes():
                    pass

        taking = asyncio.ensure_future(take())
        latency = await median_latency_ms(gateway.http, 20)
        # Short answers are complete while the stream is still under way.
        assert not taking.done() and latency < 30_000
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
