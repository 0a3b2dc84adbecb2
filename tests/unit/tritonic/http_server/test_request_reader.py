"""Requests of a connection are answered one at a time and in order. Bytes of a body are never parsed as a request."""

import asyncio
import time

import pytest

from tests.unit.tritonic.http_server.live_server import GET, POST, live_server
from tritonic.http_server.protocol import BoundedProtocol

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
UPGRADES = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
    "websocket": b"Connection: keep-alive, Upgrade\r\nUPGRADE: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "anything": b"upgrade:anything\r\nConnection: upgrade\r\n",
    "twice": b"Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: upgrade\r\nConnection: upgrade\r\n",
    "none": b"",
}


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("in_pieces", [False, True], ids=["together", "in pieces"])
async def test_an_upgrade_offer_is_answered_in_http_1_1(chunked: bool, in_pieces: bool) -> None:
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(HIDDEN)
    body = chunk(HIDDEN) + b"0\r\n\r\n" if chunked else HIDDEN
    async with live_server() as server:
        for name, upgrade in UPGRADES.items():
            server.requests.clear()
            head = POST + upgrade + framing + b"\r\n\r\n"
            answer = await server.answer(*((head, body, LAST) if in_pieces else (head + body + LAST,)))
            received = [(each["path"], each["size"]) for each in server.requests]
            assert received == [("/", len(HIDDEN)), ("/last", 0)], name
            assert answer.count(b"HTTP/1.1 200 OK") == 2 and answer.endswith(b'["/last", 0]'), name


async def test_an_upgrade_without_a_body_is_a_request() -> None:
    async with live_server() as server:
        for name, upgrade in UPGRADES.items():
            server.requests.clear()
            await server.answer(b"GET /a HTTP/1.1\r\nHost: x\r\n" + upgrade + b"\r\n" + LAST)
            assert [each["path"] for each in server.requests] == ["/a", "/last"], name


async def test_requests_that_come_together_are_answered_in_order() -> None:
    requests = [b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(20)]
    requests[7] = b"POST /7 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    requests[9] = b"POST /9 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"hello") + b"0\r\n\r\n"
    async with live_server() as server:
        whole = b"".join(requests) + LAST
        for size in (len(whole), 100, 7):
            server.requests.clear()
            answer = await server.answer(*(whole[at : at + size] for at in range(0, len(whole), size)), pause=0.001)
            assert [each["path"] for each in server.requests] == [f"/{number}" for number in range(20)] + ["/last"]
            assert answer.count(b"200 OK") == 21 and b'["/7", 5]' in answer and b'["/9", 5]' in answer


async def test_the_next_request_is_parsed_after_the_answer() -> None:
    async with live_server() as server:
        reader, writer = await server.connect()
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + GET * 50_000)
        await asyncio.sleep(0.3)
        assert [each["path"] for each in server.requests] == ["/slow"]
        assert server.connections.buffered_bytes < 600_000, "one piece, and the bytes read ahead"
        server.begun.set()
        started, answered = time.monotonic(), 0
        while answered < 200 and time.monotonic() - started < 60:
            answered += (await reader.read(65536)).count(b"200 OK")
        assert answered >= 200
        writer.transport.abort()


async def test_a_client_that_reads_nothing_gets_no_further_answers() -> None:
    async with live_server() as server:
        writer = await server.deaf()
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 2000)
        async with asyncio.timeout(30):
            while not server.requests:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert 1 <= len(server.requests) < 10, "the answers in the kernel's buffers, and one more"
        writer.transport.abort()


async def test_a_disconnect_with_pipelined_requests_is_noticed() -> None:
    async with live_server() as server:
        _, writer = await server.connect()
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + GET * 3)
        async with asyncio.timeout(30):
            while not server.requests:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            writer.close()
            while not server.ended:
                await asyncio.sleep(0.01)
        assert server.ended == ["gone"] and len(server.requests) == 1


@pytest.mark.parametrize("size", [1, 3, 64 * 1024, 1_000_003])
async def test_the_end_of_a_chunked_body_is_found(size: int) -> None:
    data = (b"\r\n\r\n" + b"0\r\n\r\n" + b"a" * (9 if size <= 3 else size // 2)) * 3
    body = b"".join(chunk(data[at : at + size]) for at in range(0, len(data), size)) + b"0\r\nX-Trailer: a\r\n\r\n"
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    async with live_server() as server:
        for cut in (len(body), 4096) if len(body) > 5000 else (len(body), 1, 2, 3, 5):
            server.requests.clear()
            pieces = [body[at : at + cut] for at in range(0, len(body), cut)]
            answer = await server.answer(head, *pieces, LAST, pause=0)
            assert [each["size"] for each in server.requests] == [len(data), 0]
            assert b"x-trailer" not in dict(server.requests[0]["headers"]), "trailers are not parsed"
            assert answer.endswith(b'["/last", 0]')


async def test_bytes_after_a_body_with_many_apparent_ends_are_dropped_and_the_connection_closes() -> None:
    """A search for each end would take a CPU second a megabyte. Without bytes after the body, the connection stays."""
    data = b"\r\n\r\n" * 20_000
    request = POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(data) + b"0\r\n\r\n"
    async with live_server(idle_timeout=30) as server:
        answer = await server.answer(request + HIDDEN + LAST)
        assert [each["path"] for each in server.requests] == ["/"] and server.requests[0]["size"] == len(data)
        assert b"connection: close" in answer and answer.endswith(b'["/", 80000]')
        server.requests.clear()
        answer = await server.answer(request, request, LAST, pause=0.3)
        assert [each["size"] for each in server.requests] == [len(data), len(data), 0]


async def test_a_client_that_expects_100_continue_gets_it() -> None:
    async with live_server() as server:
        reader, writer = await server.connect()
        writer.write(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await reader.readuntil(b"]")).endswith(b'["/", 5]')
        writer.close()


PIECES = {
    "requests": GET * 40_000,
    "the shortest requests": b"GET / HTTP/1.0\r\n\r\n" * 40_000,
    "empty lines": b"\r\n" * 500_000,
    "header fields": POST + b"a:\r\n" * 300_000,
    "a folded field": POST + b"a: b\r\n" + b" \r\n" * 300_000,
    "chunks of one byte": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 100_000,
    "chunks that look like ends": POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"\r\n\r\n" * 200_000),
    "small chunks that look like ends": POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"\r\n\r\n") * 60_000,
    "an extension": POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a=b;" * 200_000,
    "trailers": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a:\r\n" * 200_000,
    "a target": b"GET /" + b"%41" * 300_000,
    "a large body": POST + b"Content-Length: 9000000\r\n\r\n" + b"a" * 9_000_000,
    "offers of other protocols": (POST + UPGRADES["h2c"] + b"\r\n") * 10_000,
}


@pytest.mark.parametrize("sent", PIECES.values(), ids=PIECES.keys())
@pytest.mark.usefixtures("frozen_heap")
async def test_no_piece_blocks_the_event_loop(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is CPU time, since other processes may delay this one. 7 ms were measured."""
    longest = 0.0

    def timed(name: str) -> None:
        method = getattr(BoundedProtocol, name)

        def timing(*arguments: object) -> None:
            nonlocal longest
            started = time.thread_time()
            method(*arguments)
            longest = max(longest, time.thread_time() - started)

        monkeypatch.setattr(BoundedProtocol, name, timing)

    timed("data_received")
    timed("_run_scheduled")
    async with live_server() as server:
        _, writer = await server.connect()
        writer.write(sent)
        await asyncio.sleep(0.6)
        assert server.connections.buffered_bytes < 400_000
        writer.transport.abort()
    assert 0 < longest < 0.1
