"""POST requests to URLs of callers, and servers that answer them badly."""

import asyncio
import time

import pytest

from gateway.media.invalid_media import InvalidMedia
from gateway.media.url_fetcher import UrlFetcher
from tests.unit.gateway.media.media_stubs import StubSite

HEADERS = {"Content-Type": "application/json", "webhook-id": "evt_1"}


def make_fetcher(timeout: float = 5.0, **options) -> UrlFetcher:
    settings = {"allow_private": True, "allowed_hosts": (), "lookups": 1, "max_bytes": 0, **options}
    return UrlFetcher(timeout=timeout, **settings)


async def post(url: str, fetcher: UrlFetcher | None = None, body: bytes = b"{}") -> int:
    return await (fetcher or make_fetcher()).post(url, HEADERS, body, caller="caller")


async def failure(url: str, fetcher: UrlFetcher | None = None) -> str:
    with pytest.raises(InvalidMedia) as failed:
        await post(url, fetcher)
    return str(failed.value)


async def test_statuses_are_returned_and_redirects_not_followed(site: StubSite) -> None:
    assert await post(site.page("/hook?a=b", b"thanks")) == 200
    assert await post(site.page("/none", b"", status="204 No Content")) == 204
    assert await post(site.page("/down", b"x" * 10**6, status="503 Unavailable")) == 503
    assert await post(site.redirect("/away", site.url("/hook?a=b"))) == 302
    assert len(site.requests) == 4
    lines = site.requests[0].split("\r\n")
    assert lines[0] == "POST /hook?a=b HTTP/1.1" and f"Host: 127.0.0.1:{site.port}" in lines
    assert {"webhook-id: evt_1", "Content-Length: 2", "Connection: close"} <= set(lines)


async def test_bodies_are_not_read(site: StubSite) -> None:
    """A body may be endless, larger than any limit, or in an encoding that the gateway does not know."""
    sent = 0

    async def endless(out: asyncio.StreamWriter) -> None:
        nonlocal sent
        out.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 999999999999\r\n\r\n")
        while not out.is_closing():
            out.write(b"a" * 65536)
            await out.drain()
            sent += 65536

    assert await post(site.script("/", endless)) == 200
    assert sent < 20 * 10**6


async def test_broken_servers(site: StubSite) -> None:
    async def gibberish(out: asyncio.StreamWriter) -> None:
        out.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")

    async def silent(out: asyncio.StreamWriter) -> None:
        out.close()

    async def informational(out: asyncio.StreamWriter) -> None:
        out.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + b"HTTP/1.1 200 OK\r\n\r\n")

    async def endless_headers(out: asyncio.StreamWriter) -> None:
        out.write(b"HTTP/1.1 200 OK\r\n")
        while not out.is_closing():
            out.write(b"a: " + b"b" * 60000 + b"\r\n")
            await out.drain()

    for answer in (gibberish, silent, informational, endless_headers):
        assert "valid HTTP response" in await failure(site.script("/", answer))
    assert "refuses connections" in await failure("http://127.0.0.1:1/")


async def test_timeout(site: StubSite) -> None:
    async def slow(out: asyncio.StreamWriter) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nA: " + b"b" * 1000:
            out.write(bytes([byte]))
            await asyncio.sleep(0.02)
            if out.is_closing():
                return

    began = time.monotonic()
    assert "within 0.3 seconds" in await failure(site.script("/", slow), make_fetcher(0.3))
    assert time.monotonic() - began < 3


async def test_private_addresses_are_refused(site: StubSite) -> None:
    guarded = make_fetcher(allow_private=False)
    assert "public Internet" in await failure(site.page("/", b""), guarded)
    assert "public Internet" in await failure(f"http://localhost:{site.port}/", guarded)
    assert site.requests == []
    assert await post(site.url("/"), make_fetcher(allow_private=False, allowed_hosts=["127.0.0.1"])) == 200


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1/", "public Internet"),
        ("http://[::ffff:10.0.0.1]/", "public Internet"),
        ("http://[fd00::1]:80/", "public Internet"),
        ("http://0x7f000001/", "not a valid URL"),
        ("http://user@example.com/", "user name"),
        ("file:///etc/passwd", "http:// or https://"),
        ("//example.com/", "http:// or https://"),
        ("http://example.com:99999/", "not a valid URL"),
        ("http://example.com:0/", "not a valid URL"),
        ("http://exa mple.com/", "not a valid URL"),
        ("http://a\0b/", "not a valid URL"),
        ("http://a..b/", "not a valid URL"),
        (f"http://{'a' * 64}.com/", "not a valid URL"),
        (f"http://{'a.' * 127}com/", "not a valid URL"),
        ("https://example.com/" + "a" * 9000, "longer than 8192 characters"),
    ],
)
def test_urls_that_always_fail_are_known_without_a_lookup(url: str, reason: str) -> None:
    with pytest.raises(InvalidMedia, match=reason):
        make_fetcher(allow_private=False).check(url)


def test_urls_that_may_work_pass_the_check() -> None:
    guarded = make_fetcher(allow_private=False, allowed_hosts=["10.0.0.1", "[fd00::1]"])
    for url in (
        "https://example.com/",
        "http://8.8.8.8/",
        "http://10.0.0.1:8080/a",
        "http://[fd00::1]/",
        "http://a_b.例え.jp./",
    ):
        guarded.check(url)
