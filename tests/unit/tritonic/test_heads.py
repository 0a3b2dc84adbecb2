"""Requests whose heads do not end, before a real uvicorn."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
import uvicorn

from tritonic.heads import LIMIT, LimitedHeads

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
PIECE = 16 * 1024


class Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def measures(scope: Any, receive: Any, send: Any) -> None:
    """Answers with how long the body was."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    body = json.dumps(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest_asyncio.fixture
async def port() -> AsyncIterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = Quiet(uvicorn.Config(measures, http=LimitedHeads, lifespan="off", log_config=None, access_log=False))
        running = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        await running


async def answer(port: int, *pieces: bytes) -> tuple[bytes, int]:
    """What comes back, and how many bytes were sent until the connection was closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = 0
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
            await asyncio.sleep(0)
        writer.write_eof()
    except OSError:
        pass
    try:
        async with asyncio.timeout(5):
            return await reader.read(), sent
    except ConnectionError:
        return b"", sent
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (HEAD, b"X-A: " + b"a" * PIECE + b"\r\n"),
        (HEAD + b"X-A: ", b"a" * PIECE),
        (b"GET /?", b"a" * PIECE),
        (b"\r\n", b"\r\n" * PIECE),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a" * PIECE),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: " + b"a" * PIECE + b"\r\n"),
    ],
    ids=["many", "one", "url", "lines", "extension", "trailers"],
)
async def test_a_head_without_an_end_ends_the_connection(port: int, first: bytes, piece: bytes) -> None:
    said, sent = await answer(port, first, *([piece] * 4000))
    assert sent < 16 * 2**20, "the kernel holds some megabytes, and nobody else any"
    assert said == b"" or said.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))


async def test_who_reads_is_told(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD)
    for _ in range(LIMIT // PIECE + 1):
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"X-A: " + b"a" * PIECE + b"\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 431 ")
    writer.close()


async def test_what_is_usual_passes(port: int) -> None:
    head = HEAD + b"X-A: " + b"a" * (LIMIT - 1000) + b"\r\n"
    chunks = [b"1\r\na\r\n"] * 30_000
    several = head + b"Content-Length: 5\r\n\r\nhello"
    for pieces, told in (
        ([head + b"Content-Length: 3000000\r\n\r\n", *([b"a" * 100_000] * 30)], [3_000_000]),
        ([head, b"Transfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n"], [30_000]),
        ([several] * 8, [5] * 8),
    ):
        said, _ = await answer(port, *pieces)
        assert said.count(b"200 OK") == len(told) and said.endswith(str(told[-1]).encode())
