"""HTTP/1.0, which knows no chunks, no `Host`, and connections that stay only where the client asks for it."""

import pytest

from tests.unit.tritonic.http_server.live_server import live_server

KEEP = b"Connection: keep-alive\r\n"


def get(path: bytes, more: bytes = b"", method: bytes = b"GET", version: bytes = b"1.0") -> bytes:
    return method + b" " + path + b" HTTP/" + version + b"\r\n" + more + b"\r\n"


@pytest.mark.parametrize("more", [b"", KEEP, b"Host: x\r\n"], ids=["bare", "keep-alive", "host"])
async def test_an_answer_of_unknown_length_ends_with_the_connection(more: bytes) -> None:
    async with live_server() as server:
        said = await server.answer(get(b"/stream", more) + get(b"/next", more))
        head, _, body = said.partition(b"\r\n\r\n")
        assert body == b"one two three." and [asked["path"] for asked in server.requests] == ["/stream"]
        assert b"transfer-encoding" not in head and b"connection: close" in head and b"keep-alive" not in head
        last = get(b"/stream", b"Host: x\r\nConnection: close\r\n", version=b"1.1")
        assert (await server.answer(last)).endswith(
            b"\r\n\r\n4\r\none \r\n4\r\ntwo \r\n5\r\nthree\r\n1\r\n.\r\n0\r\n\r\n"
        )


async def test_a_connection_stays_where_the_client_asks_and_the_length_is_known() -> None:
    async with live_server() as server:
        posted = get(b"/a", KEEP + b"Content-Length: 5\r\n", b"POST") + b"hello"
        said = await server.answer(posted + get(b"/b", KEEP) + get(b"/c") + get(b"/d"))
        assert [(asked["path"], asked["size"]) for asked in server.requests] == [("/a", 5), ("/b", 0), ("/c", 0)]
        assert said.count(b"connection: keep-alive\r\n") == 2 and said.count(b"connection: close\r\n") == 1
        assert said.endswith(b'["/c", 0]')


async def test_a_head_has_no_body_and_leaves_the_connection() -> None:
    async with live_server() as server:
        said = await server.answer(get(b"/stream", KEEP, b"HEAD") + get(b"/b", b"", b"HEAD"))
        first, second, nothing = said.split(b"\r\n\r\n")
        assert b"keep-alive" in first and b"connection: close" in second and not nothing


async def test_nobody_waits_for_leave_to_send() -> None:
    """1.0 has no interim answers (RFC 9110, section 10.1.1)."""
    async with live_server() as server:
        head = get(b"/a", b"Content-Length: 5\r\nExpect: 100-continue\r\n", b"POST")
        said = await server.answer(head, b"hello", pause=0.1)
        assert said.startswith(b"HTTP/1.1 200 ") and said.endswith(b'["/a", 5]')
