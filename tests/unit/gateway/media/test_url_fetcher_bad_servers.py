"""Servers that answer badly, slowly or without end: what a fetch takes of them, and for how long."""

import asyncio
import gzip
import resource
import socket
import threading
import time

import pytest

from gateway.errors import InvalidRequest, Overloaded
from tests.unit.gateway.media.media_samples import DOCUMENT, IMAGE, fetch_blob, fetch_error, image_bytes


async def test_statuses_and_broken_servers(site, media):
    assert "status 404" in await fetch_error(media, site.page("/no", b"x", status="404 Not Found"))
    assert "status 302" in await fetch_error(media, site.page("/nowhere", b"", status="302 Found"))

    async def cut(out):
        out.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfew")

    assert "truncated" in await fetch_error(media, site.script("/cut", cut))

    async def gibberish(out):
        out.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")

    assert "valid HTTP response" in await fetch_error(media, site.script("/ssh", gibberish))
    assert "refuses connections or does not respond" in await fetch_error(media, "http://127.0.0.1:1/")
    assert "the file is empty" in await fetch_error(media, site.page("/empty", b""))


async def test_a_server_without_tls_is_refused(media):
    async def serve(_, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert "TLS connection to its host failed" in await fetch_error(media, f"https://127.0.0.1:{port}/")
    server.close()


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_endless_response_is_cut_at_the_limit(site, make_media, chunked):
    sent = 0

    async def endless(out):
        nonlocal sent
        out.write(b"HTTP/1.1 200 OK\r\n" + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n"))
        while not out.is_closing():
            out.write(b"10000\r\n" + b"a" * 65536 + b"\r\n" if chunked else b"a" * 65536)
            await out.drain()
            sent += 65536

    media = make_media(media_allow_private=True, media_max_bytes=10**6)
    assert "larger than the limit of 1000000 bytes" in await fetch_error(media, site.script("/", endless))
    assert sent < 20 * 10**6


async def test_a_response_with_a_too_large_length_is_not_read(site, make_media):
    async def announce(out):
        out.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n")
        await asyncio.sleep(60)

    media = make_media(media_allow_private=True, media_max_bytes=10**6)
    started = time.monotonic()
    assert "larger" in await fetch_error(media, site.script("/", announce))
    assert time.monotonic() - started < 30


async def test_a_slow_response_times_out(site, make_media):
    async def drip(out):
        out.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not out.is_closing():
            out.write(b"a")
            await out.drain()
            await asyncio.sleep(0.05)

    media = make_media(media_allow_private=True, media_timeout=0.5)
    started = time.monotonic()
    assert "within 0.5 seconds" in await fetch_error(media, site.script("/", drip))
    assert time.monotonic() - started < 30


async def test_a_hanging_resolver_times_out(make_media):
    async def resolve(host, port):
        await asyncio.sleep(60)

    assert "within 0.3 seconds" in await fetch_error(make_media(resolve, media_timeout=0.3), "http://slow.example/")


async def test_a_gzip_bomb_is_cut_at_the_limit(site, media):
    bomb = gzip.compress(bytes(2**30), 9)
    assert len(bomb) < 1_100_000
    await fetch_blob(
        media, site.page("/ok", gzip.compress(b"fine"), "Content-Encoding: gzip"), param="p", accept=DOCUMENT
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "larger" in await fetch_error(media, site.page("/", bomb, "Content-Encoding: gzip"))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 200, f"{grown} MiB"


async def test_types_are_sniffed_from_the_bytes(site, media):
    script = site.page("/a.png", b"#!/bin/sh\necho hi\n", "Content-Type: image/png")
    assert "expected an image" in await fetch_error(media, script, accept=IMAGE)
    png = site.page("/a.txt", image_bytes(), "Content-Type: text/plain")
    assert "of the type image/png" in await fetch_error(media, png)
    assert (await media.load_image(png, param="p")).media_type == "image/png"


async def test_no_more_urls_are_fetched_at_a_time_than_allowed(site, make_media):
    most = 0

    async def slowly(out):
        nonlocal most
        most = max(most, site.num_open)
        await asyncio.sleep(0.1)
        out.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    url = site.script("/", slowly)
    media = make_media(media_allow_private=True, media_concurrency=4)
    await asyncio.gather(*(fetch_blob(media, url, param="p", accept=DOCUMENT) for _ in range(6)))
    assert most == 2, "one caller takes no more than it leaves to others"

    async def hang(out):
        await asyncio.sleep(2)

    media = make_media(media_allow_private=True, media_concurrency=1, media_timeout=0.4)
    hung = site.script("/hang", hang)
    results = await asyncio.gather(
        *(fetch_blob(media, hung, param="p", accept=DOCUMENT) for _ in range(3)), return_exceptions=True
    )
    assert {type(each) for each in results} == {InvalidRequest, Overloaded}


async def test_closing_cancels_running_fetches(site, media):
    async def hang(out):
        await asyncio.sleep(30)

    fetching = asyncio.create_task(fetch_blob(media, site.script("/", hang), param="p", accept=DOCUMENT))
    while not site.requests:
        await asyncio.sleep(0.01)
    await media.close()
    assert fetching.cancelled()
    with pytest.raises(Overloaded):
        await fetch_blob(media, site.url("/"), param="p", accept=DOCUMENT)


async def send_endlessly(out: asyncio.StreamWriter, start: bytes, again: bytes) -> None:
    """Send without end, as fast as it is taken."""
    out.write(start)
    while not out.is_closing():
        out.write(again * (64 * 1024 // len(again)))
        await out.drain()


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("start", "again", "reason"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "valid HTTP response"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "valid HTTP response"),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n" + OK[:9], "valid HTTP response"),
        (OK, b"a: b\r\n", "valid HTTP response"),
        (OK + b"a: ", b"b", "valid HTTP response"),
        (b"HTTP/1.1 200 ", b"OK", "valid HTTP response"),
        (b"\r\n", b"\r\n", "valid HTTP response"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", "truncated"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"e", "truncated"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"a: b\r\n", "truncated"),
        (OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"")[:10], b"\0\0\0\xff\xff", "larger"),
    ],
    ids=["continue", "hints", "announced", "headers", "header", "reason", "empty", "chunks", "extension", "trailers",
         "blocks"],
)  # fmt: skip
async def test_endless_responses_are_refused_early(site, make_media, start, again, reason):
    media = make_media(media_allow_private=True, media_max_bytes=2_000_000)
    url = site.script("/", lambda out: send_endlessly(out, start, again))
    began = time.thread_time()
    assert reason in await fetch_error(media, url)
    # The server is part of this thread: it, too, sends no more than some megabytes.
    assert time.thread_time() - began < 1.5


@pytest.mark.usefixtures("frozen_heap")
async def test_a_fast_server_does_not_block_other_requests(site, make_media):
    media = make_media(media_allow_private=True)
    head = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    fetching = asyncio.create_task(
        fetch_error(media, site.script("/", lambda out: send_endlessly(out, head, b"4\r\nxxxx\r\n")))
    )
    longest, turns = 0.0, 0
    while not fetching.done():
        began = time.thread_time()
        await asyncio.sleep(0)
        longest, turns = max(longest, time.thread_time() - began), turns + 1
    assert "truncated" in await fetching
    assert longest < 0.1 and turns > 10


async def test_interim_responses_are_skipped(site, media):
    async def announce(out):
        out.write(b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n" + OK + b"Content-Length: 4\r\n\r\nfine")

    blob = await fetch_blob(media, site.script("/", announce), param="p", accept=DOCUMENT)
    assert blob.data == b"fine"


async def test_a_response_may_end_with_its_connection(site, media):
    async def answer(out):
        out.write(OK + b"Content-Type: Text/Plain; charset=x\r\n\r\nto the ")
        await out.drain()
        await asyncio.sleep(0.05)
        out.write(b"end")

    blob = await fetch_blob(media, site.script("/", answer), param="p", accept=DOCUMENT)
    assert (blob.data, blob.declared_type) == (b"to the end", "text/plain")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_unrequested_compression_is_decoded(site, media, encoding):
    import zlib

    packed = gzip.compress(b"x" * 10**6) if encoding == "gzip" else zlib.compress(b"x" * 10**6)
    header = f"Content-Encoding: {encoding}"
    blob = await fetch_blob(media, site.page("/", packed, header), param="p", accept=DOCUMENT)
    assert blob.data == b"x" * 10**6
    assert "truncated" in await fetch_error(media, site.page("/cut", packed[:-10], header))
    assert "truncated" in await fetch_error(media, site.page("/not", b"not packed at all", header))
    assert "content encoding 'br'" in await fetch_error(media, site.page("/br", b"x", "Content-Encoding: br"))


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 3\r\nContent-Length: 5\r\n",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: -3\r\n",
        b"Content-Length: \xd9\xa3\r\n",
        b"Content-Length: " + b"9" * 5000 + b"\r\n",
        b" folded: x\r\n",
    ],
)
async def test_contradictory_headers_are_refused(site, media, head):
    async def answer(out):
        out.write(OK + head + b"\r\nabc")

    reason = await fetch_error(media, site.script("/", answer))
    assert "valid HTTP response" in reason or "larger" in reason or "truncated" in reason


async def test_a_stalled_tls_handshake_times_out(make_media):
    async def serve(reader, writer):
        await reader.read()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    media = make_media(media_allow_private=True, media_timeout=0.4)
    assert "within 0.4 seconds" in await fetch_error(media, f"https://127.0.0.1:{port}/")
    server.close()


async def test_hanging_lookups_use_only_their_callers_slots(make_media, monkeypatch):
    """The system's resolver cannot be stopped; others' look-ups have places of theirs, whoever still waits."""
    go_on, running = threading.Event(), 0
    ask = socket.getaddrinfo

    def look_up(host, *arguments, **options):
        nonlocal running
        if host != "slow.example":
            return ask(host, *arguments, **options)
        running += 1
        go_on.wait(10)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    media = make_media(media_timeout=0.4, media_concurrency=4)
    for _ in range(3):
        with pytest.raises(InvalidRequest, match="within"):
            await asyncio.gather(*(media.load_image("http://slow.example/", param="p") for _ in range(2)))
    assert running == 2
    with media.new_budget("another") as budget, pytest.raises(InvalidRequest, match="public Internet"):
        await media.load_image("http://localhost/", param="p", budget=budget)
    go_on.set()
