"""The end of event streams: by the model, the client or a shutdown; and slow readers."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from gateway.http import delivery
from gateway.http.disconnect import ClientDisconnected, DisconnectWatch
from tests.fakes.asgi_client import requesting_client

Events = Callable[[], AsyncGenerator[bytes]]


def request_to(receive: Receive, send_timeout: float = 60) -> Any:
    """A request, as far as delivery looks at it."""
    trace = SimpleNamespace(disconnected=False, error=None, request_id="r")
    settings = SimpleNamespace(send_timeout=send_timeout)
    return SimpleNamespace(
        receive=receive,
        state=SimpleNamespace(trace=trace),
        app=SimpleNamespace(state=SimpleNamespace(settings=settings)),
    )


async def start_response(request: Any, events: AsyncGenerator[bytes]) -> Any:
    return await delivery.sse(request, events, lambda event: [event], lambda error: b"failed", b"[DONE]")


class Connection:
    """The messages that uvicorn accepts from an application, in their order."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.complete = False
        self.free = asyncio.Event()
        self.free.set()
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.free.wait()
        expected = "http.response.body" if self.sent else "http.response.start"
        assert message["type"] == expected and not self.complete
        self.sent.append(message)
        self.complete = message.get("more_body") is False

    @property
    def text(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


async def two_events() -> AsyncGenerator[bytes]:
    await asyncio.sleep(0)
    yield b"1"
    await asyncio.sleep(0)
    yield b"2"


@pytest.mark.parametrize("turns", range(1, 30))
@pytest.mark.parametrize("paused", [False, True])
async def test_a_stream_ends_correctly_at_any_moment_of_a_shutdown(turns: int, paused: bool) -> None:
    """The client gets an error event, or already has the whole stream."""
    connection = Connection()
    if paused:
        connection.free.clear()
    request, events = request_to(connection.receive), two_events()

    async def answer() -> None:
        response = await start_response(request, events)
        await response(None, connection.receive, connection.send)

    answering = asyncio.create_task(answer())
    for _ in range(turns):
        await asyncio.sleep(0)
    answering.cancel()
    connection.free.set()
    with contextlib.suppress(asyncio.CancelledError):
        await answering
    assert not connection.sent or connection.complete
    whole = connection.text == b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n"
    assert not connection.sent or whole or connection.text.endswith(b"data: failed\n\n")
    assert request.state.trace.error is None or not whole
    assert not request.state.trace.disconnected
    await asyncio.sleep(0)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_a_truncated_event_is_the_last() -> None:
    async def large() -> AsyncGenerator[bytes]:
        yield b"x" * 200_000

    connection = Connection()
    response = await start_response(request_to(connection.receive), large())

    async def send(message: Message) -> None:
        await connection.send(message)
        if len(connection.sent) == 2:
            connection.free.clear()

    answering = asyncio.create_task(response(None, connection.receive, send))
    while connection.free.is_set():
        await asyncio.sleep(0)
    answering.cancel()
    connection.free.set()
    await answering
    assert len(connection.text) == 65536 and not connection.complete


@pytest.mark.parametrize("stops", [False, True])
async def test_a_disconnect_during_a_shutdown(stops: bool) -> None:
    """A task that the server cancels stays cancelled. A disconnect ends the response, whatever the work does."""
    connection = Connection()
    request = request_to(connection.receive)
    closing = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            closing.set()
            await asyncio.sleep(0.05)
            if not stops:
                raise ValueError("the work fails when it is cancelled")

    async def waiting() -> None:
        with DisconnectWatch(connection.receive, request.state.trace) as watch:
            await watch.run(work())

    task = asyncio.create_task(waiting())
    await asyncio.sleep(0.01)
    connection.gone.set()
    await closing.wait()
    if stops:
        task.cancel()
    with pytest.raises(asyncio.CancelledError if stops else ClientDisconnected):
        await task
    assert request.state.trace.disconnected is not stops
    assert task.cancelling() == int(stops)


@contextlib.asynccontextmanager
async def served(events: Events, send_timeout: float) -> AsyncIterator[tuple[Any, socket.socket]]:
    """A real server that answers with events, and a client that has asked and reads nothing by itself."""
    state = SimpleNamespace(request=None, ended=False)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = request_to(receive, send_timeout)
        response = await start_response(request, events())
        state.request = request
        await response(scope, receive, send)
        state.ended = True

    async with requesting_client(app, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n") as client:
        while state.request is None:
            await asyncio.sleep(0.01)
        yield state, client


async def test_a_client_that_does_not_read_the_last_event_is_disconnected() -> None:
    async def events() -> AsyncGenerator[bytes]:
        yield b"x" * 32_000_000

    async with served(events, 0.2) as (state, _):
        async with asyncio.timeout(30):
            while not state.ended:
                await asyncio.sleep(0.05)
        assert state.request.state.trace.disconnected


async def test_a_slow_reader_gets_all_of_a_large_event() -> None:
    async def events() -> AsyncGenerator[bytes]:
        yield b"x" * 32_000_000
        yield b"y"

    async with served(events, 0.5) as (state, client):
        read, last = 0, b"?"
        async with asyncio.timeout(60):
            while last and b"[DONE]" not in last:
                last = await asyncio.get_running_loop().sock_recv(client, 2**20)
                read += len(last)
                await asyncio.sleep(0.03)
        assert last and read > 32_000_000
        assert not state.request.state.trace.disconnected
