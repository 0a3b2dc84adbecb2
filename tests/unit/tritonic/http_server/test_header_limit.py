"""Endless, too long and invalid heads are refused; usual ones pass."""

import asyncio
import json
import re
from typing import Any

import pytest
import structlog

from tests.unit.tritonic.http_server.live_server import GET, POST, live_server
from tritonic.http_server.header_limit import MAX_BLANK_LINES, MAX_HEAD_BYTES, MAX_HEADER_FIELDS, MAX_TARGET_BYTES

PIECE = 16 * 1024


def refusal(answer: bytes) -> tuple[int, str]:
    """Check that a refusal is JSON in OpenAI's error format and closes the connection; return its status and type."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\ncontent-type: application/json\r\n" in head and b"\r\nconnection: close" in head
    assert re.search(rb"\r\nx-request-id: req_[0-9a-f]{32}\r\n", head)
    assert f"\r\ncontent-length: {len(body)}\r\n".encode() in head
    error = json.loads(body)
    assert error["code"] and error["message"] == error["error"]["message"]
    return int(answer.split(b" ")[1]), error["error"]["type"]


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
        answer = await server.answer(first, *([piece] * 5), pause=0.05)
        assert refusal(answer) == (431, "invalid_request_error")
        flood = await server.answer(first, *([piece] * 3000), pause=0)  # more than the server drains
        assert not flood or refusal(flood)[0] == 431
        assert server.connections.buffered_bytes == 0


async def test_endless_empty_lines_are_refused() -> None:
    async with live_server(head_timeout=0.4) as server:
        answer = await server.answer(b"\r\n", *([b"\r\n" * PIECE] * 20), pause=0.05)
        assert refusal(answer) == (400, "invalid_request_error") and not server.requests
        answer = await server.answer(b"\r\n" * MAX_BLANK_LINES + GET + b"\r\n" * MAX_BLANK_LINES, pause=0.05)
        assert answer.count(b"200 OK") == 1 and b"400" not in answer


async def test_heads_that_are_too_long_are_refused_with_the_limit() -> None:
    async with live_server() as server:
        fields = b"".join(b"X-%d: a\r\n" % number for number in range(MAX_HEADER_FIELDS))
        assert refusal(await server.answer(POST + fields + b"\r\n")) == (431, "invalid_request_error")
        long = b"GET /" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n"
        assert refusal(await server.answer(long)) == (414, "invalid_request_error")
        assert not server.requests


async def test_usual_heads_pass() -> None:
    head = POST + b"Connection: close\r\nX-A: " + b"a" * (MAX_HEAD_BYTES - 1000) + b"\r\n"
    chunks = [b"1\r\na\r\n" * 100] * 300
    async with live_server() as server:
        for pieces, size in (
            ([head + b"Content-Length: 3000000\r\n\r\n", *([b"a" * 100_000] * 30)], 3_000_000),
            ([head, b"Transfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n"], 30_000),
            ([b"\r\n\r\n" + head, b"Content-Length: 5\r\n\r\nhello"], 5),
        ):
            answer = await server.answer(*pieces, pause=0)
            assert answer.startswith(b"HTTP/1.1 200 OK") and answer.endswith(b'["/", %d]' % size)


async def test_a_head_may_come_byte_by_byte() -> None:
    async with live_server() as server:
        last = b"GET /a?b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = await server.answer(*(bytes([byte]) for byte in GET + last), pause=0.001)
        assert answer.count(b"200 OK") == 2 and answer.endswith(b'["/a", 0]')


CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
REFUSED = {
    "both lengths": CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "both lengths, in the other order": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
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
    "no Host field with a host in the request line": b"GET http://y/ HTTP/1.1\r\n\r\n",
}


async def test_invalid_requests_get_400_and_close_the_connection() -> None:
    async with live_server() as server:
        cases = [
            (name, pieces)
            for name, sent in REFUSED.items()
            for pieces in ((sent + GET,), (sent, GET), (sent[:-1], sent[-1:] + GET))
        ]
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*(server.answer(*pieces) for _, pieces in cases))
        for (name, _), answer in zip(cases, answers, strict=True):
            assert refusal(answer) == (400, "invalid_request_error"), name
            assert answer.count(b"HTTP/1.1 400 ") == 1 and b" 200 OK" not in answer, name
        # Requests with an invalid chunk reached the application, which then got a disconnect.
        assert 0 < len(server.requests) == server.ended.count("gone")


async def test_odd_paths_are_paths() -> None:
    paths = [b"/", b"http://x/", b"http://x", b"HTTP://X/", b"//y/", b"/%zz%00%ff", b"/?%zz&&=%", b"/#"]
    async with live_server() as server:
        for path in paths:
            answer = await server.answer(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 "), path
        assert len(server.requests) == len(paths)


async def test_a_refused_request_has_an_id_in_the_log() -> None:
    head = POST + b"X-Request-Id: mine\r\n"
    cases = {
        head + b"Transfer-Encoding: gzip\r\n\r\n": (b"mine", "400 malformed"),
        head + b"Transfer-Encoding: chunked\r\n\r\nx\r\n": (b"mine", "400 malformed"),
        head + b"\r\nFOO\r\n\r\n": (b"req_", "400 malformed"),  # the id belongs to the previous request
        POST + b"X-Request-Id: a b\r\nTransfer-Encoding: gzip\r\n\r\n": (b"req_", "400 malformed"),
        b"GET /" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1\r\n\r\n": (b"req_", "414 too_large"),
        b"\x16\x03\x01\x02": (b"req_", "400 malformed"),
        b"GET /": (b"req_", "408 slow"),
    }
    async with live_server(head_timeout=0.3) as server:
        for sent, (request_id, status_why) in cases.items():
            with structlog.testing.capture_logs() as lines:
                answer = await server.answer(sent)
            (line,) = _refusals(lines)
            assert re.findall(rb"\r\nx-request-id: (\S+)\r\n", answer) == [line["request_id"].encode()], sent[:80]
            assert line["request_id"].encode().startswith(request_id) and line["log_level"] == "info"
            assert (f"{line['status']} {line['why']}", line["caller"]) == (status_why, "127.0.0.1")


async def test_an_unfinished_request_keeps_its_id() -> None:
    """The log line of the application has the same id, whether or not the application got the request."""
    async with live_server() as server:
        for pieces in ((CHUNKED + b"\r\n", b"x\r\n"), (CHUNKED + b"\r\nx\r\n",)):
            server.requests.clear()
            answer = await server.answer(*pieces)
            (request,) = server.requests
            (request_id,) = re.findall(rb"\r\nx-request-id: (\S+)\r\n", answer)
            assert request["id"].encode() == request_id


async def test_log_lines_of_refusals_are_limited() -> None:
    async with live_server() as server:
        with structlog.testing.capture_logs() as lines:
            answers = await asyncio.gather(*(server.answer(b"garbage\r\n\r\n", pause=0) for _ in range(150)))
        assert len({answer for answer in answers if b"x-request-id" in answer}) == 150
        assert len(_refusals(lines)) == 100


def _refusals(lines: list[Any]) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == "request refused"]
