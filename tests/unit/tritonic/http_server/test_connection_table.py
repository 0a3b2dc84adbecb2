"""Timeouts, limits and eviction of connections."""

import asyncio
import gc
import json
import time
import weakref
from collections.abc import Iterator

import pytest
import structlog

from tests.unit.tritonic.http_server.live_server import GET, POST, LiveServer, live_server
from tritonic.http_server.connections import Connection, ConnectionLimits, ConnectionTable, Peer

DEAF = b"POST /deaf HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"


@pytest.fixture
def log() -> Iterator[list]:
    with structlog.testing.capture_logs() as lines:
        yield lines


async def answer_until_close(server: LiveServer, *pieces: bytes, pause: float = 0.05) -> tuple[bytes, float]:
    """Send the pieces; return the answer, and the seconds from the last piece to the close of the connection."""
    reader, writer = await server.connect()
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(pause)
    started = time.monotonic()
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    return answer, time.monotonic() - started


ENDED_SECONDS = 12.0
"""Far more than the timeouts that these tests set, and less than the default timeout of a head (15 s)."""

SILENT: list[tuple[tuple[bytes, ...], bytes]] = [
    ((), b""),
    ((b"\r\n",), b""),
    ((b"G",), b"408"),
    ((b"GET / HT",), b"408"),
    ((POST + b"X: y\r\n",), b"408"),
    ((GET,), b"200"),
    ((GET, b"\r\n"), b"200"),
    ((GET, b"GET / H"), b"408"),
    ((GET + GET,), b"200"),
    ((POST + b"Content-Length: 3\r\n\r\nabc",), b"200"),
    ((b"BREW\r\n\r\n",), b"400"),
]


async def test_silent_connections_are_closed() -> None:
    async with live_server(head_timeout=0.5, idle_timeout=0.5) as server:
        ends = await asyncio.gather(*(answer_until_close(server, *pieces) for pieces, _ in SILENT))
        for (pieces, status), (answer, seconds) in zip(SILENT, ends, strict=True):
            assert answer.rpartition(b"HTTP/1.1 ")[2][:3] == status, pieces
            assert seconds < ENDED_SECONDS, pieces
        async with asyncio.timeout(30):
            while len(server.connections):
                await asyncio.sleep(0.05)


async def test_a_slow_head_times_out() -> None:
    async with live_server(head_timeout=0.5, idle_timeout=30) as server:
        answer, seconds = await answer_until_close(server, GET, *(bytes([byte]) for byte in POST), pause=0.1)
        assert answer.count(b"HTTP/1.1 ") == 2 and b" 408 " in answer
        assert seconds < ENDED_SECONDS


async def test_a_connection_with_a_request_in_progress_is_not_idle() -> None:
    async with live_server(head_timeout=0.2, idle_timeout=0.2) as server:
        asking = asyncio.create_task(server.answer(b"GET /slow HTTP/1.0\r\n\r\n"))
        await asyncio.sleep(1)
        server.begun.set()
        assert b"200 OK" in await asking


async def test_a_body_that_the_application_does_not_read_is_cut_off() -> None:
    async with live_server() as server:
        reader, writer = await server.connect()
        writer.write(DEAF)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"200 OK" in head and b"connection: close" in head
        sent = 0
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(60):
                while sent < 500_000_000:
                    writer.write(b"a" * 65536)
                    await writer.drain()
                    await asyncio.sleep(0)
                    sent += 65536
        assert sent < 64 * 2**20
        assert server.connections.buffered_bytes == 0
        writer.close()


async def test_a_client_that_still_sends_its_body_gets_the_answer() -> None:
    async with live_server() as server:
        reader, writer = await server.connect()
        writer.write(DEAF.replace(b"1000000000", b"8000000"))
        for _ in range(80):
            writer.write(b"a" * 100_000)
            await writer.drain()
        answer = await reader.read()
        assert answer.endswith(b'["/deaf", 0]') and b"connection: close" in answer
        writer.close()


async def test_a_small_unread_body_keeps_the_connection_open() -> None:
    async with live_server(idle_timeout=0.3) as server:
        request = b"POST /deaf HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
        answer, _ = await answer_until_close(server, request, request)
        assert answer.count(b"200 OK") == 2 and b"connection: close" not in answer


async def test_only_a_client_that_reads_nothing_is_cut_off(log: list) -> None:
    large = b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with live_server(send_timeout=1, idle_timeout=0.5) as server:
        stuck = await server.deaf()
        stuck.write(large)
        reader, writer = await server.connect()
        writer.write(large)
        got = 0
        while data := await reader.read(100_000):
            got += len(data)
            await asyncio.sleep(0.02)
        assert got > 8_000_000
        async with asyncio.timeout(30):
            while not any("unread" in line for line in log):
                await asyncio.sleep(0.1)
        async with asyncio.timeout(30):
            while len(server.connections):
                await asyncio.sleep(0.05)
        stuck.transport.abort()
        writer.close()


async def test_the_longest_idle_connection_is_evicted(log: list) -> None:
    async with live_server(max_connections=5) as server:
        idle = [await server.connect() for _ in range(5)]
        await asyncio.sleep(0.05)
        assert b"200 OK" in await server.answer(GET.replace(b"x", b"x\r\nConnection: close"))
        first, gone = idle[0]
        with pytest.raises(ConnectionResetError):
            assert await first.read() == b""
            raise ConnectionResetError  # the kernel decides between an end of file and a reset
        gone.close()
        for reader, writer in idle[1:]:
            writer.write(GET)
            assert b"200 OK" in await reader.readuntil(b"]")
            writer.close()
    (line,) = [line for line in log if line["event"] == "connections cut short"]
    assert (line["gave_way"], line["bound"], line["log_level"]) == (1, 5, "warning")


async def test_connections_with_requests_in_progress_are_not_evicted(log: list) -> None:
    slow = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
    async with live_server(max_connections=3) as server:
        busy = [await server.connect() for _ in range(3)]
        for _, writer in busy:
            writer.write(slow)
        await asyncio.sleep(0.1)
        for _ in range(20):
            answer, seconds = await answer_until_close(server, GET)
            if answer:  # the next one too many may end it before it is read
                assert answer.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in answer and seconds < ENDED_SECONDS
                assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "overloaded"
        server.begun.set()
        for reader, writer in busy:
            assert b"200 OK" in await reader.readuntil(b"]")
            writer.close()
    lines = [line for line in log if line["event"] == "connections cut short"]
    assert len(lines) == 1, "one in a minute, not one for each connection"


async def test_connections_of_one_address_keep_no_other_address_out() -> None:
    """The evicted connection is of the address with the most, even if another has been idle for longer."""
    table = ConnectionTable(ConnectionLimits(max_connections=4))
    honest = [FakeConnection(), FakeConnection(), FakeConnection()]
    flood = [FakeConnection() for _ in range(10)]
    assert table.register(honest[0], "10.0.0.1")
    assert all(table.register(each, "2001:db8::1") for each in flood[:3])
    assert table.register(honest[1], "10.0.0.2")
    assert [each.evicted for each in flood[:4]] == [True, False, False, False] and not honest[0].evicted
    for number, each in enumerate(flood[3:]):
        assert table.register(each, f"2001:db8::{number:x}"), "of IPv6 a network of 64 bits is one caller"
    assert not any(each.evicted for each in honest) and len(table) == 4
    table.mark_busy(flood[-1])
    table.mark_busy(flood[-2])
    assert table.register(honest[2], "10.0.0.3") and honest[0].evicted, "else the longest idle of all addresses"
    for each in (*honest, *flood):
        table.unregister(each)
    assert not len(table) and not table._peers and table._evictable == ({}, {})


async def test_a_connection_that_sends_a_body_is_evicted_last() -> None:
    table = ConnectionTable(ConnectionLimits(max_connections=3))
    sending, idle, working = FakeConnection(), FakeConnection(), FakeConnection()
    for each in (sending, idle, working):
        table.register(each, "10.0.0.1")
    table.mark_evictable(sending, for_body=True)
    table.mark_busy(working)
    assert table.register(FakeConnection(), "10.0.0.1") and idle.evicted and not sending.evicted
    table.mark_evictable(working, for_body=True)
    assert table.register(FakeConnection(), "10.0.0.1") and not sending.evicted, "the newest sends no body"
    others = [FakeConnection(), FakeConnection(), FakeConnection()]
    for number, each in enumerate(others):
        table.register(each, f"10.0.1.{number}")
        table.mark_busy(each)
    assert sending.evicted and working.evicted


async def test_exhausted_file_descriptors_are_logged(monkeypatch: pytest.MonkeyPatch, log: list) -> None:
    monkeypatch.setattr("tritonic.http_server.connections.is_exhausted", lambda: True)
    async with live_server(idle_timeout=0.2) as server:
        await server.answer(GET)
        await asyncio.sleep(0.3)
    (line,) = [line for line in log if "without_descriptors" in line]
    assert line["log_level"] == "warning"


async def test_one_address_cannot_use_all_connections() -> None:
    """As for the slots of a model, one address alone gets four fifths."""
    table = ConnectionTable(ConnectionLimits(max_connections=20))
    greedy, honest = [FakeConnection() for _ in range(20)], [FakeConnection() for _ in range(6)]
    assert all(table.register(each, "10.0.0.1") for each in greedy)
    assert [table.start_request(each) for each in greedy] == [True] * 16 + [False] * 4
    for each in greedy[:16]:
        table.mark_busy(each)
    for number, each in enumerate(honest[:4]):
        assert table.register(each, f"10.0.1.{number}") and table.start_request(each)
        table.mark_busy(each)
    assert not table.start_request(greedy[16]) and not table.register(honest[4], "10.0.1.9")
    table.unregister(honest[4])
    # Answered and closed requests free their places.
    table.mark_evictable(greedy[0])
    table.mark_evictable(greedy[0])
    assert table.register(honest[5], "10.0.1.9") and table.start_request(honest[5])
    for each in (*greedy, *honest):
        table.unregister(each)
    assert (len(table), table._num_requests, table._peers) == (0, 0, {})


async def test_an_address_with_too_many_requests_gets_503(log: list) -> None:
    async with live_server(max_connections=10) as server:
        opened = [await server.connect() for _ in range(10)]
        for _, writer in opened:
            writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(30):
            answer = await asyncio.gather(*(reader.read() for reader, _ in opened[8:]))
        assert all(b"503 Service" in each and b"retry-after: 1" in each and b"for others" in each for each in answer)
        assert len(server.requests) == 8
        server.begun.set()
        for reader, _ in opened[:8]:
            assert b"200 OK" in await reader.readuntil(b"]")
        assert b"200 OK" in await server.answer(GET.replace(b"HTTP/1.1", b"HTTP/1.0")), "they are free again"
        for _, writer in opened:
            writer.close()
    assert [line["greedy"] for line in log if line["event"] == "connections cut short"] == [1]


class FakeConnection:
    peer: Peer
    has_request = False
    deadline = float("inf")
    is_closing = False
    unsent_bytes = 0
    evicted = False

    def evict(self) -> None:
        self.evicted = True

    def on_deadline(self, now: float) -> None:
        raise AssertionError


@pytest.mark.usefixtures("frozen_heap")
async def test_evictions_at_the_limit_are_cheap() -> None:
    table = ConnectionTable(ConnectionLimits(max_connections=4000))
    for number in range(4000):
        table.register(FakeConnection(), f"10.1.{number // 250}.{number % 250}")
    started = time.thread_time()
    for number in range(2000):
        assert table.register(FakeConnection(), f"10.2.0.{number % 250}")
    assert time.thread_time() - started < 0.5, "0.02 s were measured"


async def test_closed_connections_are_freed_without_the_garbage_collector() -> None:
    async with live_server(idle_timeout=0.2) as server:
        seen: weakref.WeakSet[Connection] = weakref.WeakSet()
        gc.collect()
        gc.disable()
        try:
            for sent in (GET, b"GET / HT", b"BREW\r\n", POST + b"a:b\r\n" * 500 + b"\r\n", DEAF, GET + GET + b"P"):
                _, writer = await server.connect()
                writer.write(sent)
                await asyncio.sleep(0.1)
                seen.update(server.connections._all)
                writer.transport.abort()
            async with asyncio.timeout(30):
                while len(server.connections) or list(seen):
                    await asyncio.sleep(0.05)
            assert not len(server.connections) and not list(seen)
        finally:
            gc.enable()


async def test_unsent_bytes_have_a_bound(monkeypatch: pytest.MonkeyPatch, log: list) -> None:
    monkeypatch.setattr("tritonic.http_server.connections.MAX_UNSENT_BYTES", 10_000_000)
    async with live_server() as server:
        writers = []
        for _ in range(12):
            writers.append(await server.deaf())
            writers[-1].write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(30):
            while not any("unread" in line for line in log):
                await asyncio.sleep(0.1)
        assert 0 < sum(each.unsent_bytes for each in server.connections._all) <= 10_000_000
        for writer in writers:
            writer.transport.abort()
    (line,) = [line for line in log if line["event"] == "connections cut short"]
    assert line["unread"] == 1


async def test_connections_with_the_most_unsent_bytes_are_closed() -> None:
    table = ConnectionTable(ConnectionLimits())
    honest, flood = FakeConnection(), [FakeConnection() for _ in range(5)]
    table.register(honest, "10.0.0.1")
    honest.unsent_bytes = 50 * 2**20
    for number, each in enumerate(flood):
        table.register(each, "10.0.0.2")
        each.unsent_bytes = (20 + number) * 2**20
    table._limit_unsent()
    assert [each.evicted for each in flood] == [False, False, False, True, True] and not honest.evicted
    assert len(table) == 4


async def test_buffered_bytes_have_a_bound(monkeypatch: pytest.MonkeyPatch, log: list) -> None:
    monkeypatch.setattr("tritonic.http_server.request_reader.MAX_BUFFERED_BYTES", 200_000)
    async with live_server() as server:
        writers = []
        for _ in range(20):
            _, writer = await server.connect()
            writer.write(POST + b"X-A: " + b"a" * 50_000)
            writers.append(writer)
        await asyncio.sleep(0.3)
        assert server.connections.buffered_bytes <= 200_000
        assert b"200 OK" in (await answer_until_close(server, GET.replace(b"x", b"x\r\nConnection: close")))[0]
        for writer in writers:
            writer.close()
    assert [line["no_memory"] for line in log if "no_memory" in line] == [1]
