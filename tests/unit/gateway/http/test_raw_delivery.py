"""Responses of raw bytes: complete, failed early or late, and cut off."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from gateway.errors import Overloaded
from gateway.http import delivery
from tests.fakes.asgi_client import requesting_client

CHUNK = b"\x00\xff\xe2\x80\xa8" * 10


def make_request(receive: Receive, send_timeout: float = 60.0) -> Any:
    """A request with the attributes that delivery reads."""
    trace = SimpleNamespace(disconnected=False, error=None, request_id="r")
    settings = SimpleNamespace(send_timeout=send_timeout)
    return SimpleNamespace(
        receive=receive,
        state=SimpleNamespace(trace=trace),
        app=SimpleNamespace(state=SimpleNamespace(settings=settings)),
    )


class Connection:
    """The two ends of an ASGI connection, without a server."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.disconnected = asyncio.Event()
        self.request = make_request(self.receive)

    async def receive(self) -> Message:
        await self.disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def deliver(self, chunks: AsyncGenerator[bytes], **options: Any) -> None:
        response = await delivery.raw(self.request, chunks, "audio/mpeg", **options)
        await response({"type": "http"}, self.receive, self.send)

    @property
    def trace(self) -> Any:
        return self.request.state.trace

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def is_complete(self) -> bool:
        return bool(self.sent) and self.sent[-1].get("more_body") is False


class Chunks:
    """Chunks of a file: `failure`, if any, is raised after them, and `closed` is set when the generator is closed."""

    def __init__(self, *chunks: bytes, failure: Exception | None = None, endless: bool = False) -> None:
        self.closed = asyncio.Event()
        self._chunks, self._failure, self._endless = chunks, failure, endless

    async def read(self) -> AsyncGenerator[bytes]:
        try:
            for chunk in self._chunks:
                await asyncio.sleep(0)
                yield chunk
            if self._endless:
                await asyncio.Event().wait()
            if self._failure:
                raise self._failure
        finally:
            self.closed.set()


async def test_bytes_are_sent_as_they_are() -> None:
    connection, source = Connection(), Chunks(CHUNK, b"", b"x" * 70_000)
    await connection.deliver(source.read(), headers={"Content-Length": "70050", "ETag": '"a"'}, status=206)
    start, *bodies = connection.sent
    headers = dict(start["headers"])
    assert start["status"] == 206
    assert headers == {b"content-length": b"70050", b"etag": b'"a"', b"content-type": b"audio/mpeg"}
    assert connection.body == CHUNK + b"x" * 70_000 and connection.is_complete
    assert [len(message["body"]) for message in bodies] == [50, 65_536, 70_000 - 65_536, 0]
    assert source.closed.is_set() and connection.trace.error is None


async def test_an_empty_body_without_a_length() -> None:
    connection = Connection()
    await connection.deliver(Chunks().read())
    assert dict(connection.sent[0]["headers"]) == {b"content-type": b"audio/mpeg"}
    assert connection.body == b"" and connection.is_complete


async def test_an_early_failure_is_raised() -> None:
    connection, source = Connection(), Chunks(failure=Overloaded("The store does not answer."))
    with pytest.raises(Overloaded):
        await connection.deliver(source.read())
    assert connection.sent == [] and source.closed.is_set()


@pytest.mark.parametrize("failure", [Overloaded("The store does not answer."), ValueError("a fault of ours")])
async def test_a_late_failure_leaves_the_body_incomplete(failure: Exception) -> None:
    connection, source = Connection(), Chunks(CHUNK, failure=failure)
    await connection.deliver(source.read())
    assert connection.body == CHUNK and not connection.is_complete
    assert connection.trace.error is failure or connection.trace.error.message.startswith("The gateway failed")


async def test_a_disconnect_closes_the_source() -> None:
    connection, source = Connection(), Chunks(CHUNK, endless=True)
    delivering = asyncio.create_task(connection.deliver(source.read()))
    while connection.body != CHUNK:
        await asyncio.sleep(0)
    connection.disconnected.set()
    await asyncio.wait_for(delivering, 30)
    assert source.closed.is_set() and connection.trace.disconnected and not connection.is_complete


async def test_a_server_that_stops_cuts_the_body_off() -> None:
    connection, source = Connection(), Chunks(CHUNK, endless=True)
    delivering = asyncio.create_task(connection.deliver(source.read()))
    while connection.body != CHUNK:
        await asyncio.sleep(0)
    delivering.cancel()
    await asyncio.wait([delivering], timeout=20)
    assert delivering.done() and source.closed.is_set()
    assert connection.body == CHUNK and not connection.is_complete
    assert isinstance(connection.trace.error, Overloaded) and not connection.trace.disconnected


@contextlib.asynccontextmanager
async def serve(source: Chunks, send_timeout: float, **options: Any) -> AsyncIterator[tuple[Any, socket.socket]]:
    """Run uvicorn with one response of `source`. Yields its trace, once there is one, and a client that has asked."""
    state = SimpleNamespace(trace=None)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = make_request(receive, send_timeout)
        state.trace = request.state.trace
        response = await delivery.raw(request, source.read(), "audio/mpeg", **options)
        await response(scope, receive, send)

    async with requesting_client(app, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as client:
        yield state, client


@pytest.mark.parametrize("headers", [{"Content-Length": "1000"}, {}])
async def test_the_client_sees_that_the_body_is_incomplete(headers: dict[str, str]) -> None:
    """The server closes the connection before the announced length, or without the last chunk."""
    source = Chunks(CHUNK, failure=Overloaded("The store does not answer."))
    async with serve(source, 60.0, headers=headers) as (_, client), asyncio.timeout(30):
        received = b""
        while data := await asyncio.get_running_loop().sock_recv(client, 2**16):
            received += data
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == (CHUNK if headers else b"32\r\n" + CHUNK + b"\r\n")


async def test_a_client_that_reads_nothing_is_disconnected() -> None:
    source = Chunks(b"x" * 32_000_000)
    async with serve(source, 0.2) as (state, _), asyncio.timeout(30):
        await source.closed.wait()
        while state.trace is None or not state.trace.disconnected:
            await asyncio.sleep(0.01)
