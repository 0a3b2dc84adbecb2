"""Both transports against servers of grpcio: they behave alike."""

import asyncio
import re
import socket

import pytest

from gateway.triton.grpc_transport import GrpcTransport
from gateway.triton.rpc.channel import Channel
from gateway.triton.rpc.status import RpcError, Status
from gateway.triton.transport import Connect, Transport
from tests.unit.gateway.rpc.grpc_peer import GrpcServer, TestService, count_echoes

pytestmark = pytest.mark.parametrize("connect", [Channel, GrpcTransport])


async def failure_of(transport: Transport) -> RpcError:
    """Call until the first message, and return the failure."""
    with pytest.raises(RpcError) as failure:
        await (await transport.call("/a.B/Echo", b"\1", idle=60)).read()
    return failure.value


async def test_streams(connect: Connect) -> None:
    async with GrpcServer(TestService(), connect) as served:
        calls = (count_echoes(served.transport, bytes([n]) * 900) for n in range(1, 200))
        assert await asyncio.gather(*calls) == [*range(1, 200)]


async def test_large_messages(connect: Connect) -> None:
    async with GrpcServer(TestService(), connect, max_receive_message_length=-1) as served:
        large = b"\2" + bytes(range(256)) * 40_000
        calls = [count_echoes(served.transport, large), count_echoes(served.transport, b"\x50small")]
        assert await asyncio.gather(*calls) == [2, 80]


async def test_a_unary_call(connect: Connect) -> None:
    async with GrpcServer(TestService(), connect) as served:
        assert await served.transport.unary("/a.B/Echo", b"\1one", timeout=60) == b"\1one"
        for messages in (0, 2):
            with pytest.raises(RpcError, match="one message"):
                await served.transport.unary("/a.B/Echo", bytes([messages]), timeout=60)


async def test_metadata_and_the_name_of_the_client(connect: Connect) -> None:
    async with GrpcServer(TestService(), connect) as served:
        headers = (await served.transport.unary("/a.B/Headers", b"", timeout=60)).decode()
        assert "('x-secret', 'sesame')" in headers
        assert re.search(r"\('user-agent', 'tritonic\b", headers)


async def test_failures(connect: Connect) -> None:
    async with GrpcServer(TestService(), connect) as served:
        call = await served.transport.call("/a.B/Fail", b"", idle=60)
        assert await call.read() == b"one"
        for _ in range(2):
            with pytest.raises(RpcError) as failure:
                await call.read()
            assert (failure.value.status, failure.value.message) == (Status.FAILED_PRECONDITION, "né 100% 😀\n")
        with pytest.raises(RpcError) as failure:
            await served.transport.unary("/a.B/None", b"", timeout=60)
        assert failure.value.status is Status.UNIMPLEMENTED


async def test_a_message_over_the_servers_limit_fails(connect: Connect) -> None:
    async with GrpcServer(TestService(), connect, max_receive_message_length=1_000) as served:
        with pytest.raises(RpcError) as failure:
            await count_echoes(served.transport, b"\1" * 500_000)
        assert failure.value.status in (Status.RESOURCE_EXHAUSTED, Status.CANCELLED)
        assert await count_echoes(served.transport, b"\3") == 3


async def test_a_response_before_the_request_is_read(connect: Connect) -> None:
    async with GrpcServer(TestService(), connect, max_receive_message_length=-1) as served:
        call = await served.transport.call("/a.B/Early", b"x" * 3_000_000, idle=60)
        assert await call.read() == b"one"
        assert await call.read() is None
        assert call.done and not call.has_message


async def test_cancelling_reaches_the_server(connect: Connect) -> None:
    service = TestService()
    async with GrpcServer(service, connect) as served:
        call = await served.transport.call("/a.B/Hold", b"x", idle=60)
        assert await call.read() == b"one"
        call.cancel()
        await asyncio.wait_for(service.given_up.wait(), 30)
        with pytest.raises(RpcError) as failure:
            await call.read()
        assert failure.value.status is Status.CANCELLED and not call.has_message


async def test_a_buffered_message_is_reported(connect: Connect) -> None:
    async with GrpcServer(TestService(), connect) as served:
        call = await served.transport.call("/a.B/Echo", b"\3", idle=60)
        assert await call.read() == b"\3"
        async with asyncio.timeout(30):
            while not call.has_message:
                await asyncio.sleep(0.001)
        assert [await call.read() for _ in range(3)] == [b"\3", b"\3", None]
        assert not call.has_message


async def test_a_reader_that_is_cancelled_can_read_on(connect: Connect) -> None:
    async with GrpcServer(TestService(), connect) as served:
        call = await served.transport.call("/a.B/Hold", b"x", idle=60)
        assert await call.read() == b"one"
        reading = asyncio.create_task(call.read())
        await asyncio.sleep(0.01)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert not call.done
        call.cancel()


async def test_a_silent_server_times_out(connect: Connect) -> None:
    """A read raises `TimeoutError` after `idle` seconds, and again; the call goes on."""
    service = TestService()
    async with GrpcServer(service, connect) as served:
        await (await served.transport.call("/a.B/Echo", b"\1", idle=60)).read()  # the connection is there
        call = await served.transport.call("/a.B/Hold", b"x", idle=1)
        while not service.held.is_set():
            try:
                await call.read()
            except TimeoutError:  # the machine is busy
                continue
        for _ in range(2):
            with pytest.raises(TimeoutError):
                while await call.read() is not None:
                    pass
        assert not call.done
        call.cancel()


async def test_a_unary_call_times_out(connect: Connect) -> None:
    service = TestService()
    async with GrpcServer(service, connect) as served:
        assert await count_echoes(served.transport, b"\1") == 1  # connecting takes time of its own
        with pytest.raises(RpcError) as failure:
            await served.transport.unary("/a.B/Hold", b"", timeout=0.2)
        assert failure.value.status is Status.DEADLINE_EXCEEDED
        assert failure.value.message == "The server did not answer for 0.2 seconds."
        await asyncio.wait_for(service.given_up.wait(), 30)


async def test_backpressure(connect: Connect) -> None:
    """A server stops sending while its messages are not read."""
    service = TestService()
    async with GrpcServer(service, connect) as served:
        call = await served.transport.call("/a.B/Flood", b"x", idle=60)
        assert await call.read()
        before = -1
        while service.num_flooded > before:
            before = service.num_flooded
            await asyncio.sleep(0.3)
        assert before < 100  # the windows of both ends are 64 KiB, and messages 10 KB
        for _ in range(200):
            assert await call.read()
        call.cancel()


async def test_calls_beyond_the_servers_limit_wait(connect: Connect) -> None:
    """gRPC's server counts a call a moment longer than it answers it, and may refuse the next one meanwhile."""

    async def retried(transport: Transport) -> int:
        while True:
            try:
                return await count_echoes(transport, b"\5x")
            except RpcError as error:
                if not re.search(r"HTTP/2 error 7\b|RST_STREAM with error code 7\b", error.message):
                    raise

    async with GrpcServer(TestService(), connect, max_concurrent_streams=3) as served:
        assert await asyncio.gather(*(retried(served.transport) for _ in range(40))) == [5] * 40


async def test_the_server_stops(connect: Connect) -> None:
    """The server ends the running call after its grace period; new calls find no server."""
    async with GrpcServer(TestService(), connect) as served:
        call = await served.transport.call("/a.B/Hold", b"x", idle=60)
        assert await call.read() == b"one"
        stopping = asyncio.create_task(served.stop(0.05))
        with pytest.raises(RpcError) as failure:
            await call.read()
        assert failure.value.status in (Status.CANCELLED, Status.UNAVAILABLE)
        await stopping
        assert (await failure_of(served.transport)).status is Status.UNAVAILABLE


async def test_a_server_that_starts_later_is_found(connect: Connect) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    transport = connect(f"127.0.0.1:{port}", ())
    try:
        for _ in range(3):
            assert (await failure_of(transport)).status is Status.UNAVAILABLE
        async with GrpcServer(TestService(), connect, port=port), asyncio.timeout(30):
            while True:
                try:
                    assert await count_echoes(transport, b"\3") == 3
                    break
                except RpcError as error:
                    assert error.status is Status.UNAVAILABLE
                    await asyncio.sleep(0.05)
    finally:
        await transport.close()


async def test_the_transport_is_closed(connect: Connect) -> None:
    service = TestService()
    async with GrpcServer(service, connect) as served:
        call = await served.transport.call("/a.B/Hold", b"x", idle=60)
        assert await call.read() == b"one"
        reading = asyncio.create_task(call.read())
        await asyncio.sleep(0)
        await served.transport.close()
        with pytest.raises(RpcError) as failure:
            await reading
        assert failure.value.status is Status.CANCELLED
        await asyncio.wait_for(service.given_up.wait(), 30)
        assert (await failure_of(served.transport)).status is Status.CANCELLED
