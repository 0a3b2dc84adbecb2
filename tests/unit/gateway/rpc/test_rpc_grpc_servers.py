"""gRPC's own servers at the other end."""

import asyncio

import grpc
import pytest

from gateway.triton.rpc.channel import Channel
from gateway.triton.rpc.status import RpcError, Status


class Plays(grpc.GenericRpcHandler):
    """Echo sends a message back as often as its first byte says; Hold answers once and waits."""

    def __init__(self) -> None:
        self.held = asyncio.Event()
        self.given_up = asyncio.Event()

    def service(self, details):
        plays = {"/a.B/Echo": self._echo, "/a.B/Hold": self._hold, "/a.B/Fail": self._fail}
        if details.method in plays:
            return grpc.stream_stream_rpc_method_handler(plays[details.method])
        return None

    async def _echo(self, requests, context):
        async for message in requests:
            for _ in range(message[0]):
                yield message

    async def _hold(self, requests, context):
        try:
            async for _ in requests:
                yield b"one"
                self.held.set()
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.given_up.set()
            raise

    async def _fail(self, requests, context):
        yield b"one"
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "né 100% 😀\n")


class Served:
    def __init__(self, plays: Plays, **options: int) -> None:
        self.plays = plays
        self._server = grpc.aio.server(
            options=[("grpc.so_reuseport", 0), *((f"grpc.{k}", v) for k, v in options.items())]
        )
        self._server.add_generic_rpc_handlers([plays])
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    async def __aenter__(self) -> "Served":
        await self._server.start()
        self.channel = Channel(f"127.0.0.1:{self.port}")
        return self

    async def stop(self, grace: float | None = None) -> None:
        await self._server.stop(grace)

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()
        await self._server.stop(None)


async def echoed(channel: Channel, message: bytes) -> int:
    call = await channel.call("/a.B/Echo", message, idle=60)
    count = 0
    while (answer := await call.read()) is not None:
        assert answer == message
        count += 1
    return count


async def test_streams():
    async with Served(Plays()) as served:
        assert await asyncio.gather(*(echoed(served.channel, bytes([n]) * 900) for n in range(1, 200))) == [
            *range(1, 200)
        ]


async def test_large_messages():
    async with Served(Plays(), max_receive_message_length=-1) as served:
        large = b"\2" + bytes(range(256)) * 40_000
        assert await asyncio.gather(echoed(served.channel, large), echoed(served.channel, b"\x50small")) == [2, 80]


async def test_failures():
    async with Served(Plays()) as served:
        call = await served.channel.call("/a.B/Fail", b"", idle=60)
        assert await call.read() == b"one"
        with pytest.raises(RpcError) as failure:
            await call.read()
        assert (failure.value.status, failure.value.message) == (Status.FAILED_PRECONDITION, "né 100% 😀\n")
        with pytest.raises(RpcError) as failure:
            await served.channel.unary("/a.B/None", b"", timeout=60)
        assert failure.value.status is Status.UNIMPLEMENTED


async def test_a_message_that_the_server_finds_too_large():
    async with Served(Plays(), max_receive_message_length=1_000) as served:
        with pytest.raises(RpcError) as failure:
            await echoed(served.channel, b"\1" * 500_000)
        assert failure.value.status in (Status.RESOURCE_EXHAUSTED, Status.CANCELLED)
        assert await echoed(served.channel, b"\3") == 3


async def test_giving_up_reaches_the_server():
    plays = Plays()
    async with Served(plays) as served:
        call = await served.channel.call("/a.B/Hold", b"x", idle=60)
        assert await call.read() == b"one"
        call.cancel()
        await asyncio.wait_for(plays.given_up.wait(), 20)


async def test_more_calls_than_the_server_takes():
    """gRPC's server counts a call a moment longer than it answers it, and may refuse the next one meanwhile."""

    async def taken(channel: Channel) -> int:
        while True:
            try:
                return await echoed(channel, b"\5x")
            except RpcError as error:
                if error.message != "The server reset the call (HTTP/2 error 7).":
                    raise

    async with Served(Plays(), max_concurrent_streams=3) as served:
        assert await asyncio.gather(*(taken(served.channel) for _ in range(40))) == [5] * 40


async def test_the_server_stops():
    """The call that runs is cut off by the server when its grace is over; new ones find nobody."""
    plays = Plays()
    async with Served(plays) as served:
        call = await served.channel.call("/a.B/Hold", b"x", idle=60)
        assert await call.read() == b"one"
        stopping = asyncio.create_task(served.stop(0.05))
        with pytest.raises(RpcError) as failure:
            await call.read()
        assert failure.value.status in (Status.CANCELLED, Status.UNAVAILABLE)
        await stopping
        with pytest.raises(RpcError) as failure:
            await echoed(served.channel, b"\1")
        assert failure.value.status is Status.UNAVAILABLE
