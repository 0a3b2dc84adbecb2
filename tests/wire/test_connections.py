"""Connections of unknown clients cost a gateway in processes of its own little memory, time and latency."""

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fakes.scripted_model import Say
from tests.fakes.scripted_model import ScriptedModel as Script
from tests.fakes.triton import FakeTriton
from tritonic.gateway_process import GatewayProcess
from tritonic.ports import free_ports

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = LIVE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
BODY = b'{"model": "hello", "messages": [{"role": "user", "content": "Hi"}]}'


class ServedGateway:
    """A gateway in processes of its own."""

    def __init__(self, process: GatewayProcess, log: Path) -> None:
        self.process = process
        self._log = log

    def processes(self) -> list[psutil.Process]:
        """Return the processes that answer requests: the workers, or the only process."""
        serve = psutil.Process(self.process.child.pid)
        return serve.children() or [serve]

    def memory(self) -> int:
        return sum(each.memory_full_info().uss for each in self.processes())

    def cut_short(self) -> list[dict[str, Any]]:
        lines = self._log.read_text().splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in records if line["event"] == "connections cut short"]

    async def send(self, head: bytes = LAST, body: bytes = b"") -> bytes:
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.process.port)
            writer.write(head + body)
            answer = await reader.read()
            writer.close()
        return answer


@contextlib.asynccontextmanager
async def served(
    folder: Path, workers: int, descriptors: int | None = None, **variables: str
) -> AsyncIterator[ServedGateway]:
    triton = await FakeTriton([Script("hello", (Say("Hello", "stop"),))]).start()
    limit = f"ulimit -Sn {descriptors // 2}; ulimit -Hn {descriptors}; " if descriptors else ""
    command = ("bash", "-c", f"{limit}exec {sys.executable} -m tritonic serve")
    before = dict(os.environ)
    os.environ.update({"TRITONIC_DISCOVERY_INTERVAL": "0.1", "TRITONIC_LOG_LEVEL": "warning", **variables})
    try:
        log = folder / "gateway.log"
        process = GatewayProcess("127.0.0.1", free_ports(1)[0], triton.url, log, command, workers=workers)
    finally:
        os.environ.clear()
        os.environ.update(before)
    try:
        await asyncio.to_thread(process.start)
        await asyncio.to_thread(process.wait_live)
        while not await asyncio.to_thread(process.has_models):
            await asyncio.sleep(0.05)
        yield ServedGateway(process, log)
    finally:
        await asyncio.to_thread(process.stop)
        await triton.stop()


@pytest.mark.parametrize("workers", [1, 2])
async def test_unknown_clients_do_not_exhaust_the_gateway(tmp_path: Path, workers: int) -> None:
    keys = {"TRITONIC_API_KEYS": "sk-first"}
    async with served(tmp_path, workers, descriptors=512, **keys) as gateway:
        for _ in range(20):
            await gateway.send()
        await _check_pipelining(gateway)
        await _check_smuggling(gateway)
        await _check_bodies_without_a_key(gateway)
        await _check_idle_connections(gateway, workers)


async def _check_pipelining(gateway: ServedGateway) -> None:
    """A connection sends 100,000 requests and reads nothing: memory stays flat, and other clients get answers."""
    before = gateway.memory()
    with socket.create_connection(("127.0.0.1", gateway.process.port)) as client:
        client.setblocking(False)
        unsent = memoryview(LIVE * 100_000)
        longest = 0.0
        for _ in range(40):
            with contextlib.suppress(BlockingIOError):
                unsent = unsent[client.send(unsent[: 1 << 20]) :]
            started = time.monotonic()
            assert b"200 OK" in await gateway.send()
            longest = max(longest, time.monotonic() - started)
            await asyncio.sleep(0.02)
        assert gateway.memory() - before < 8 * 2**20, "0.6 MB were measured, and 145 without the limit"
        assert longest < 30, "on a busy machine"


async def _check_smuggling(gateway: ServedGateway) -> None:
    """The body of a request with `Upgrade` is not parsed as another request."""
    hidden = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        b"Authorization: Bearer sk-first\r\nContent-Length: %d\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.process.port)
    for body, status in ((hidden, b"400"), (BODY, b"200")):
        writer.write(head % len(body))
        await asyncio.sleep(0.1)
        writer.write(body)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.split(b" ")[1] == status
        length = int(answer.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        assert b'"live"' not in await reader.readexactly(length)
    writer.close()


async def _check_bodies_without_a_key(gateway: ServedGateway) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000\r\n\r\n"
    before = gateway.memory()
    for answer in await asyncio.gather(*(gateway.send(head, b"a" * 1_000_000) for _ in range(20))):
        assert answer.startswith(b"HTTP/1.1 401 ") and b"connection: close" in answer.lower()
        assert answer.count(b"HTTP/1.1 ") == 1
    assert gateway.memory() - before < 16 * 2**20


async def _check_idle_connections(gateway: ServedGateway, workers: int) -> None:
    """More connections than file descriptors: other callers get answers, and the log has one line about it."""
    async with contextlib.AsyncExitStack() as stack:
        for number in range(800 * workers):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(("127.0.0.1", gateway.process.port))
            if number % 2:
                with contextlib.suppress(OSError):
                    client.send(b"GET / HT")
            if number % 50 == 0:
                await asyncio.sleep(0.02)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sk-first\r\n"
        authorized = head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY)
        for _ in range(10):
            assert b"200 OK" in await gateway.send(authorized, BODY)
        for each in gateway.processes():
            assert each.num_fds() < 400
        lines = gateway.cut_short()
        assert 1 <= len(lines) <= workers * 2
        assert any("gave_way" in line for line in lines) and all(line["bound"] == 256 for line in lines)
