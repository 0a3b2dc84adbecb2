"""Heads that do not end, are too long, or are none; and those that are usual."""

import asyncio
import json
import re
from typing import Any

import pytest
import structlog

from tests.unit.tritonic.http_server.live_server import GET, POST, live_server
from tritonic.http_server.header_limit import MAX_BLANK_LINES, MAX_HEAD_BYTES, MAX_HEADER_FIELDS, MAX_TARGET_BYTES

PIECE = 16 * 1024


def refusal(said: bytes) -> tuple[int, str]:
    """The status and the type of a refusal, which has to be whole JSON in OpenAI's shape on a connection that ends."""
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"\r\ncontent-type: application/json\r\n" in head and b"\r\nconnection: close" in head
    assert re.search(rb"\r\nx-request-id: req_[0-9a-f]{32}\r\n", head)
    assert f"\r\ncontent-length: {len(body)}\r\n".encode() in head
    error = json.loads(body)
    assert error["code"] and error["message"] == error["error"]["message"]
    return int(said.split(b" ")[1]), error["error"]["type"]


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (POST, b"X-A: " + b"a" * PIECE + b"\r\n"),
        (POST + b"X-A: ", b"a" * PIECE),
        (b"GET /?", b"a" * PIECE),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a" * PIECE),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: " + b"a" * PIECE + b"\r\n"),
    ],
    ids=["many", "one", "url", "extension", "trailers"],
)
async def test_a_head_without_an_end_is_refused(first: bytes, piece: bytes) -> None:
    async with live_server() as server:
        said = await server.answer(first, *([piece] * 5), pause=0.05)
        assert refusal(said) == (431, "invalid_request_error")
        flood = await server.answer(first, *([piece] * 3000), pause=0)  # beyond what is drained
        assert not flood or refusal(flood)[0] == 431
        assert server.connections.buffered_bytes == 0


async def test_empty_lines_without_end_are_no_request() -> None:
    async with live_server(head_timeout=0.4) as server:
        said = await server.answer(b"\r\n", *([b"\r\n" * PIECE] * 20), pause=0.05)
        assert refusal(said) == (400, "invalid_request_error") and not server.requests
        said = await server.answer(b"\r\n" * MAX_BLANK_LINES + GET + b"\r\n" * MAX_BLANK_LINES, pause=0.05)
        assert said.count(b"200 OK") == 1 and b"400" not in said


async def test_what_is_too_long_or_too_much_is_said() -> None:
    async with live_server() as server:
        fields = b"".join(b"X-%d: a\r\n" % number for number in range(MAX_HEADER_FIELDS))
        assert refusal(await server.answer(POST + fields + b"\r\n")) == (431, "invalid_request_error")
        long = b"GET /" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n"
        assert refusal(await server.answer(long)) == (414, "invalid_request_error")
        assert not server.requests


async def test_what_is_usual_passes() -> None:
    head = POST + b"Connection: close\r\nX-A: " + b"a" * (MAX_HEAD_BYTES - 1000) + b"\r\n"
    chunks = [b"1\r\na\r\n" * 100] * 300
    async with live_server() as server:
        for pieces, told in (
            ([head + b"Content-Length: 3000000\r\n\r\n", *([b"a" * 100_000] * 30)], 3_000_000),
            ([head, b"Transfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n"], 30_000),
            ([b"\r\n\r\n" + head, b"Content-Length: 5\r\n\r\nhello"], 5),
        ):
            said = await server.answer(*pieces, pause=0)
            assert said.startswith(b"HTTP/1.1 200 OK") and said.endswith(b'["/", %d]' % told)


async def test_a_head_may_come_byte_by_byte() -> None:
    async with live_server() as server:
        last = b"GET /a?b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        said = await server.answer(*(bytes([byte]) for byte in GET + last), pause=0.001)
        assert said.count(b"200 OK") == 2 and said.endswith(b'["/a", 0]')


CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
REFUSED = {
    "both lengths": CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "both lengths, the other way": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "the same length twice": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "a signed length": POST + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": POST + b"Content-Length: -5\r\n\r\nhello",
    "a length without end": POST + b"Content-Length: 99999999999999999999999\r\n\r\nhello",
    "a length and more": POST + b"Content-Length: 5 5\r\n\r\nhello",
    "no length": POST + b"Content-Length: \r\n\r\nhello",
    "another coding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\nhello",
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked and another": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "two codings": CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "something like chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a hidden coding": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks in 1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded field": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: b\r\n c\r\n\r\n",
    "a folded first field": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nHost: x\r\nabc\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n",
    "a bad name": b"GET / HTTP/1.1\r\nHost: x\r\na(b: c\r\n\r\n",
    "NUL": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: x\n\n",
    "bare LF in a head": b"GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "bare CR": b"GET / HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
    "a chunk's size and more": CHUNKED + b"\r\n5x\r\nhello\r\n0\r\n\r\n",
    "a chunk's size of hexadecimal": CHUNKED + b"\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "a negative chunk": CHUNKED + b"\r\n-5\r\nhello\r\n0\r\n\r\n",
    "a space after a chunk's size": CHUNKED + b"\r\n5 \r\nhello\r\n0\r\n\r\n",
    "no chunk's size": CHUNKED + b"\r\n\r\nhello\r\n0\r\n\r\n",
    "a chunk without end": CHUNKED + b"\r\n" + b"f" * 17 + b"\r\nhello\r\n0\r\n\r\n",
    "bare LF after a chunk's size": CHUNKED + b"\r\n5\nhello\r\n0\r\n\r\n",
    "a chunk that is too long": CHUNKED + b"\r\n5\r\nhelloX\r\n0\r\n\r\n",
    "a chunk without its end": CHUNKED + b"\r\n5\r\nhello0\r\n\r\n",
    "a length after the body": CHUNKED + b"\r\n0\r\nContent-Length: 5\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version 2.0": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    "version 0.9": b"GET / HTTP/0.9\r\nHost: x\r\n\r\n",
    "version 1.2": b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "RTSP": b"GET / RTSP/1.0\r\nHost: x\r\n\r\n",
    "ICE": b"SOURCE / ICE/1.0\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a method in lower case": b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown method": b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n",
    "no slash": b"GET foo HTTP/1.1\r\nHost: x\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the path": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes beyond ASCII in the path": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "another host in the request line": b"GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host beside that of the request line": b"GET http://y/ HTTP/1.1\r\n\r\n",
}


async def test_what_is_no_request_is_refused_and_ends_the_connection() -> None:
    async with live_server() as server:
        ways = [
            (name, pieces)
            for name, sent in REFUSED.items()
            for pieces in ((sent + GET,), (sent, GET), (sent[:-1], sent[-1:] + GET))
        ]
        async with asyncio.timeout(20):
            answers = await asyncio.gather(*(server.answer(*pieces) for _, pieces in ways))
        for (name, _), said in zip(ways, answers, strict=True):
            assert refusal(said) == (400, "invalid_request_error"), name
            assert said.count(b"HTTP/1.1 400 ") == 1 and b" 200 OK" not in said, name
        # What came before a chunk that is none was a request, whose client is taken for gone.
        assert 0 < len(server.requests) == server.ended.count("gone")


async def test_odd_paths_are_paths() -> None:
    paths = [b"/", b"http://x/", b"http://x", b"HTTP://X/", b"//y/", b"/%zz%00%ff", b"/?%zz&&=%", b"/#"]
    async with live_server() as server:
        for path in paths:
            said = await server.answer(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert said.startswith(b"HTTP/1.1 200 "), path
        assert len(server.requests) == len(paths)


async def test_what_is_refused_has_an_id_that_the_log_knows() -> None:
    given = POST + b"X-Request-Id: mine\r\n"
    ways = {
        given + b"Transfer-Encoding: gzip\r\n\r\n": (b"mine", "400 malformed"),
        given + b"Transfer-Encoding: chunked\r\n\r\nx\r\n": (b"mine", "400 malformed"),
        given + b"\r\nFOO\r\n\r\n": (b"req_", "400 malformed"),  # the id is that of the request before it
        POST + b"X-Request-Id: a b\r\nTransfer-Encoding: gzip\r\n\r\n": (b"req_", "400 malformed"),
        b"GET /" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1\r\n\r\n": (b"req_", "414 too_large"),
        b"\x16\x03\x01\x02": (b"req_", "400 malformed"),
        b"GET /": (b"req_", "408 slow"),
    }
    async with live_server(head_timeout=0.3) as server:
        for sent, (its_id, status_why) in ways.items():
            with structlog.testing.capture_logs() as lines:
                said = await server.answer(sent)
            (line,) = _refusals(lines)
            assert re.findall(rb"\r\nx-request-id: (\S+)\r\n", said) == [line["request_id"].encode()], sent[:80]
            assert line["request_id"].encode().startswith(its_id) and line["log_level"] == "info"
            assert (f"{line['status']} {line['why']}", line["caller"]) == (status_why, "127.0.0.1")


async def test_a_request_that_was_begun_keeps_its_id() -> None:
    """The application, which writes a line about it too, may have begun or not."""
    async with live_server() as server:
        for pieces in ((CHUNKED + b"\r\n", b"x\r\n"), (CHUNKED + b"\r\nx\r\n",)):
            server.requests.clear()
            said = await server.answer(*pieces)
            (asked,) = server.requests
            (its_id,) = re.findall(rb"\r\nx-request-id: (\S+)\r\n", said)
            assert asked["id"].encode() == its_id


async def test_a_flood_of_garbage_is_no_flood_of_lines() -> None:
    async with live_server() as server:
        with structlog.testing.capture_logs() as lines:
            answers = await asyncio.gather(*(server.answer(b"garbage\r\n\r\n", pause=0) for _ in range(150)))
        assert len({said for said in answers if b"x-request-id" in said}) == 150
        assert len(_refusals(lines)) == 100


def _refusals(lines: list[Any]) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == "request refused"]
