"""Calls through a channel: connections that begin, do not begin, and follow one another."""

import asyncio
import gc
import socket
from typing import Any

import pytest
from h2.settings import SettingCodes

from gateway.triton.rpc import channel as channels
from gateway.triton.rpc import connection as connections
from gateway.triton.rpc.channel import Channel
from gateway.triton.rpc.status import RpcError, Status
from tests.unit.gateway.rpc.h2_peer import H2Peer, PeerServer, read_all

ASK = "/a.B/C"


class SilentServer(asyncio.Protocol):
    """A server that accepts a connection, sends `words` if there are any, and closes it if `leaves`."""

    def __init__(self, words: bytes = b"", leaves: bool = False) -> None:
        self.words, self.leaves = words, leaves
        self.lost = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport
        if self.words:
            transport.write(self.words)
        if self.leaves:
            transport.close()

    def connection_lost(self, error):
        self.lost.set()

    def close(self):
        self.transport.close()


@pytest.fixture
async def make_channel():
    channels = []

    def make(url: str) -> Channel:
        channels.append(Channel(url))
        return channels[-1]

    yield make
    for channel in channels:
        await channel.close()


async def connection_error(channel: Channel) -> str:
    with pytest.raises(RpcError) as failure:
        await channel.call(ASK, b"", idle=60)
    assert failure.value.status is Status.UNAVAILABLE
    return failure.value.message


async def reachable(host: str) -> bool:
    try:
        async with await PeerServer(lambda: SilentServer(leaves=True)).start(host) as server:
            reader, writer = await asyncio.open_connection(host, server.port)
            await reader.read()
            writer.close()
            await writer.wait_closed()
    except OSError:
        return False
    return True


def test_an_address_in_brackets():
    channel = Channel("[::1]:8001")
    assert (channel._host, channel._port, channel._authority) == ("::1", 8001, b"[::1]:8001")


@pytest.mark.parametrize("url", ["", "host", ":1", "host:", "host:x", "host:0", "host:65536", "host:-1", "host:²"])
def test_invalid_addresses_are_refused(url):
    with pytest.raises(ValueError):
        Channel(url)


@pytest.mark.parametrize("host, name", [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("127.0.0.1", "localhost")])
async def test_a_call_with_one_response(make_channel, host, name):
    """`localhost` has two addresses here, and the first refuses connections."""
    if not await reachable(host):
        pytest.skip(f"this machine does not reach itself at {host}")
    async with await PeerServer().start(host) as server:
        channel = make_channel(f"{name}:{server.port}")
        asking = asyncio.create_task(channel.unary(ASK, b"question", timeout=20))
        peer = await server.peer()
        assert await peer.wait_for_request(1) == b"question"
        assert peer.headers[1] == {
            ":method": "POST",
            ":scheme": "http",
            ":path": ASK,
            ":authority": f"{name}:{server.port}",
            "te": "trailers",
            "content-type": "application/grpc",
            "user-agent": "tritonic",
        }
        peer.answer(1, b"answer")
        assert await asking == b"answer"
        await channel.close()
        assert peer.wrong == [] and peer.resets == []


async def test_a_unary_call_has_one_response(make_channel):
    async with PeerServer() as server:
        channel = make_channel(server.url)
        for stream, messages in ((1, []), (3, [b"one", b"two"])):
            asking = asyncio.create_task(channel.unary(ASK, b"", timeout=20))
            peer = await server.peer()
            await peer.wait_for_request(stream)
            peer.answer(stream, *messages)
            with pytest.raises(RpcError, match="one message"):
                await asking


async def test_a_unary_call_times_out(make_channel):
    async with PeerServer() as server:
        channel = make_channel(server.url)
        (await channel.call(ASK, b"", idle=60)).cancel()  # connecting takes time of its own
        with pytest.raises(RpcError) as failure:
            await channel.unary(ASK, b"", timeout=0.2)
        assert failure.value.status is Status.DEADLINE_EXCEEDED
        peer = await server.peer()
        await peer.until(lambda peer: peer.resets == [(1, 8), (3, 8)])


async def test_a_refused_connection_is_unavailable(make_channel):
    async with PeerServer() as server:
        url = server.url
    channel = make_channel(url)
    assert "cannot be reached" in await connection_error(channel)
    async with await PeerServer().start(port=int(url.rpartition(":")[2])) as server:  # it comes later
        call = await channel.call(ASK, b"question", idle=60)
        peer = await server.peer()
        await peer.wait_for_request(1)
        peer.answer(1, b"answer")
        assert await read_all(call) == [b"answer"]


@pytest.mark.parametrize("host", ["a" * 64, "a..b"])
async def test_invalid_names_are_refused(make_channel, host):
    assert "cannot be reached" in await connection_error(make_channel(f"{host}:1"))


async def test_an_unknown_host_is_unavailable(make_channel, monkeypatch):
    async def unknown(*arguments, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)  # resolvers may take their time
    assert await connection_error(make_channel("nobody.invalid:1")) == (
        f"The server cannot be reached: [Errno {int(socket.EAI_NONAME)}] Name or service not known"
    )


async def test_a_name_that_fails_to_resolve_after_the_timeout_leaves_no_failure_behind(make_channel, monkeypatch):
    """The resolver of a cut network fails later than the attempt to connect times out."""
    monkeypatch.setattr(channels, "_CONNECT_SECONDS", 0.0)
    reported: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    name = ".".join(["a" * 63] * 4)  # too long for DNS: the resolver refuses it without asking the network
    assert await connection_error(make_channel(f"{name}:1")) == "The connection to the server timed out."
    for _ in range(3):  # the first resolution has ended when these have
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo(name, 1)
    gc.collect()
    assert reported == []


async def test_a_silent_server_is_unavailable(make_channel, monkeypatch):
    monkeypatch.setattr(channels, "_CONNECT_SECONDS", 0.05)
    async with PeerServer(SilentServer) as server:
        assert await connection_error(make_channel(server.url)) == "The connection to the server timed out."
        await asyncio.wait_for(server.peers[0].lost.wait(), 30)


async def test_a_server_of_another_protocol_is_unavailable(make_channel):
    page = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with PeerServer(lambda: SilentServer(page)) as server:
        assert "does not speak gRPC" in await connection_error(make_channel(server.url))
        await asyncio.wait_for(server.peers[0].lost.wait(), 30)


async def test_a_server_that_closes_at_once_is_unavailable(make_channel):
    async with PeerServer(lambda: SilentServer(leaves=True)) as server:
        channel = make_channel(server.url)
        for tries in range(1, 4):
            await connection_error(channel)
            assert len(server.peers) == tries


async def test_cancelling_one_caller_keeps_the_shared_connection(make_channel):
    async with PeerServer() as server:
        channel = make_channel(server.url)
        callers = [asyncio.create_task(channel.call(ASK, b"%d" % number, idle=60)) for number in range(4)]
        await asyncio.sleep(0)
        callers[0].cancel()
        calls = await asyncio.gather(*callers[1:])
        with pytest.raises(asyncio.CancelledError):
            await callers[0]
        assert len(server.peers) == 1
        for call in calls:
            call.cancel()


async def test_cancelling_all_callers_ends_the_connection_attempt(make_channel):
    async with PeerServer() as server:
        url = server.url
    channel = make_channel(url)
    callers = [asyncio.create_task(channel.call(ASK, b"", idle=60)) for _ in range(3)]
    await asyncio.sleep(0)
    connecting = channel._connecting
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    await asyncio.wait([connecting])  # and nobody is told that it failed


async def test_closing_ends_a_connection_attempt(make_channel):
    async with PeerServer(SilentServer) as server:
        channel = make_channel(server.url)
        caller = asyncio.create_task(channel.call(ASK, b"", idle=60))
        silent: Any = await server.peer()
        await channel.close()
        with pytest.raises(RpcError) as failure:
            await caller
        assert failure.value.status is Status.CANCELLED
        await asyncio.wait_for(silent.lost.wait(), 30)
        with pytest.raises(RpcError):
            await channel.call(ASK, b"", idle=60)
        assert len(server.peers) == 1


async def test_closing_at_any_moment_of_connecting(make_channel):
    async with PeerServer() as server:
        for moments in range(12):
            channel = make_channel(server.url)
            caller = asyncio.create_task(channel.call(ASK, b"", idle=60))
            for _ in range(moments):
                await asyncio.sleep(0)
            await channel.close()
            with pytest.raises(RpcError) as failure:
                await read_all(await caller)
            assert failure.value.status is Status.CANCELLED
        for peer in server.peers:
            await peer.until(lambda peer: peer.lost)


async def test_a_goaway_opens_a_new_connection(make_channel):
    async with PeerServer(lambda: H2Peer({SettingCodes.MAX_CONCURRENT_STREAMS: 1})) as server:
        channel = make_channel(server.url)
        first = await channel.call(ASK, b"first", idle=60)
        waiting = asyncio.create_task(channel.call(ASK, b"second", idle=60))
        old = await server.peer()
        await old.wait_for_request(1)
        old.raw(b"\0\0\x08\x07\0\0\0\0\0" + (1).to_bytes(4, "big") + bytes(4))
        second = await waiting  # it waited for its turn, and the old one never knew of it
        new = await server.peer(1)
        assert await new.wait_for_request(1) == b"second"
        new.answer(1, b"new")
        assert await read_all(second) == [b"new"]
        assert not old.lost
        old.answer(1, b"old")
        assert await read_all(first) == [b"old"]
        await old.until(lambda peer: peer.lost)
        assert not new.lost and old.wrong == new.wrong == []


async def test_a_lost_connection_is_reopened(make_channel):
    async with PeerServer() as server:
        channel = make_channel(server.url)
        for number in range(3):
            call = await channel.call(ASK, b"", idle=60)
            peer = await server.peer(number)
            await peer.wait_for_request(1)
            peer.close()
            with pytest.raises(RpcError) as failure:
                await call.read()
            assert failure.value.status is Status.UNAVAILABLE


async def test_closing_cancels_running_calls(make_channel):
    async with PeerServer() as server:
        channel = make_channel(server.url)
        call = await channel.call(ASK, b"", idle=60)
        reading = asyncio.create_task(call.read())
        await asyncio.sleep(0)
        await channel.close()
        with pytest.raises(RpcError) as failure:
            await reading
        assert failure.value.status is Status.CANCELLED
        await (await server.peer()).until(lambda peer: peer.lost)


async def stop_reading(channel, server) -> H2Peer:
    """A connection that was good once, and whose other end says nothing any more."""
    asking = asyncio.create_task(channel.unary(ASK, b"", timeout=20))
    peer = await server.peer()
    await peer.wait_for_request(1)
    peer.answer(1, b"answer")
    assert await asking == b"answer"
    await peer.until(lambda peer: peer.settled)
    peer.sends = None
    return peer


async def test_a_silent_connection_is_replaced(make_channel):
    async with PeerServer() as server:
        channel = make_channel(server.url)
        first = await stop_reading(channel, server)
        with pytest.raises(RpcError) as failure:
            await channel.unary(ASK, b"", timeout=0.1)
        assert failure.value.status is Status.DEADLINE_EXCEEDED
        call = await channel.call(ASK, b"", idle=60)
        assert len(server.peers) == 2 and server.peers[1] is not first
        call.cancel()


async def test_calls_of_a_silent_connection_fail(make_channel, monkeypatch):
    monkeypatch.setattr(connections, "_SILENCE_TIMEOUT_SECONDS", 0.1)
    async with PeerServer() as server:
        channel = make_channel(server.url)
        await stop_reading(channel, server)
        call = await channel.call(ASK, b"", idle=60)
        with pytest.raises(RpcError):
            await channel.unary(ASK, b"", timeout=0.1)
        with pytest.raises(RpcError) as failure:
            await call.read()
        assert failure.value.status is Status.UNAVAILABLE


async def test_a_server_that_resumes_keeps_its_calls(make_channel, monkeypatch):
    monkeypatch.setattr(connections, "_SILENCE_TIMEOUT_SECONDS", 0.2)
    async with PeerServer() as server:
        channel = make_channel(server.url)
        peer = await stop_reading(channel, server)
        call = await channel.call(ASK, b"", idle=60)
        with pytest.raises(RpcError):
            await channel.unary(ASK, b"", timeout=0.05)
        assert peer._transport
        peer.sends = peer._transport.write
        peer.answer(3, b"late")
        assert await read_all(call) == [b"late"]
