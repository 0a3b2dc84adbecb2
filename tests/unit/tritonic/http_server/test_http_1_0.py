"""HTTP/1.0: no chunks, no `Host`, and connections that stay open only on request."""

import pytest

from tests.unit.tritonic.http_server.live_server import live_server

KEEP = b"Connection: keep-alive\r\n"


def get(path: bytes, more: bytes = b"", method: bytes = b"GET", version: bytes = b"1.0") -> bytes:
    return method + b" " + path + b" HTTP/" + version + b"\r\n" + more + b"\r\n"


@pytest.mark.parametrize("more", [b"", KEEP, b"Host: x\r\n"], ids=["bare", "keep-alive", "host"])
async def test_an_answer_of_unknown_length_ends_with_the_connection(more: bytes) -> None:
    async with live_server() as server:
        answer = await server.answer(get(b"/stream", more) + get(b"/next", more))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert body == b"one two three." and [request["path"] for request in server.requests] == ["/stream"]
        assert b"transfer-encoding" not in head and b"connection: close" in head and b"keep-alive" not in head
        last = get(b"/stream", b"Host: x\r\nConnection: close\r\n", version=b"1.1")
        assert (await server.answer(last)).endswith(
            b"\r\n\r\n4\r\none \r\n4\r\ntwo \r\n5\r\nthree\r\n1\r\n.\r\n0\r\n\r\n"
        )


async def test_keep_alive_works_for_answers_of_known_length() -> None:
    async with live_server() as server:
        posted = get(b"/a", KEEP + b"Content-Length: 5\r\n", b"POST") + b"hello"
        answer = await server.answer(posted + get(b"/b", KEEP) + get(b"/c") + get(b"/d"))
        assert [(request["path"], request["size"]) for request in server.requests] == [("/a", 5), ("/b", 0), ("/c", 0)]
        assert answer.count(b"connection: keep-alive\r\n") == 2 and answer.count(b"connection: close\r\n") == 1
        assert answer.endswith(b'["/c", 0]')


async def test_the_answer_to_head_has_no_body() -> None:
    async with live_server() as server:
        answer = await server.answer(get(b"/stream", KEEP, b"HEAD") + get(b"/b", b"", b"HEAD"))
        first, second, nothing = answer.split(b"\r\n\r\n")
        assert b"keep-alive" in first and b"connection: close" in second and not nothing


async def test_http_1_0_clients_get_no_100_continue() -> None:
    """1.0 has no interim answers (RFC 9110, section 10.1.1)."""
    async with live_server() as server:
        head = get(b"/a", b"Content-Length: 5\r\nExpect: 100-continue\r\n", b"POST")
        answer = await server.answer(head, b"hello", pause=0.1)
        assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b'["/a", 5]')
