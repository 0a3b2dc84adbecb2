"""URLs of callers: what they may reach, and what servers may do to us."""

import asyncio
import gzip
import resource
import ssl
import time

import pytest
import trustme
from media_files import fetch, picture

from gateway.errors import InvalidRequest, Overloaded

PUBLIC = "93.184.216.34"


async def refusal(media, url, *, accept=("document",)) -> str:
    started = time.monotonic()
    with pytest.raises(InvalidRequest) as failure:
        await fetch(media, url, param="messages[0].content[1]", accept=accept)
    assert failure.value.param == "messages[0].content[1]"
    assert time.monotonic() - started < 10
    prefix = "Invalid value for 'messages[0].content[1]': "
    assert failure.value.message.startswith(prefix) and failure.value.message.endswith(".")
    return failure.value.message.removeprefix(prefix)


async def test_a_page_is_fetched_plainly(site, media, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    url = site.page("/notes.txt?x=1", b"hello", "Content-Type: text/plain", "Set-Cookie: a=b")
    blob = await fetch(media, url + "#part", param="p", accept=("document",))
    assert (blob.data, blob.kind, blob.media_type, blob.declared, blob.name) == (
        b"hello", "document", "text/plain", "text/plain", "notes.txt",
    )  # fmt: skip
    await fetch(media, url, param="p", accept=("document",))
    for head in site.asked:
        lines = head.lower().split("\r\n")
        assert lines[0] == "get /notes.txt?x=1 http/1.1"
        assert f"host: 127.0.0.1:{site.port}" in lines and "user-agent: tritonic" in lines
        assert not [line for line in lines if line.startswith(("cookie", "authorization", "referer"))]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "LOCALHOST.", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1", "2130706433",
        "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "127。0。0。1", "①②⑦.0.0.1", "[::]",
    ],
)  # fmt: skip
async def test_loopback_is_refused_in_every_spelling(site, make_media, host):
    site.page("/", b"secret")
    reason = await refusal(make_media(), f"http://{host}:{site.port}/")
    assert "public Internet" in reason or "not known" in reason or "not a valid URL" in reason
    assert site.asked == []


async def test_an_unusual_spelling_of_a_public_address_is_refused_too(make_media):
    assert "not a valid URL" in await refusal(make_media(), "http://134744072/")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.com/x", "expected an http or https URL"),
        ("file:///etc/passwd", "expected an http or https URL"),
        ("gopher://127.0.0.1/", "expected an http or https URL"),
        ("http://", "name a host"),
        ("http://[::1", "not a valid URL"),
        ("http://host:99999/", "not a valid URL"),
        ("http://user:word@example.com/", "user name or a password"),
        ("http://user@example.com/", "user name or a password"),
        ("http://" + "a" * 9000, "longer than 8192"),
        ("http://no-such-host.invalid/", "is not known"),
        ("just words", "expected an http or https URL"),
        ("", "expected an http or https URL"),
    ],
)
async def test_what_is_no_url_of_ours(media, url, reason):
    assert reason in await refusal(media, url)


async def test_a_name_with_one_private_address_is_refused(make_media):
    async def resolve(host, port):
        return [PUBLIC, "10.0.0.8"]

    assert "public Internet" in await refusal(make_media(resolve), "http://two.example/")


async def test_allowed_hosts_may_be_private_and_their_redirects_may_not(site, make_media):
    media = make_media(media_allowed_hosts=["LocalHost"])
    site.page("/file", b"inside")
    blob = await fetch(media, f"http://localhost:{site.port}/file", param="p", accept=("document",))
    assert blob.data == b"inside"
    site.redirect("/away", site.url("/file"))
    assert "public Internet" in await refusal(media, f"http://localhost:{site.port}/away")


async def test_a_name_that_changes_its_mind_leads_where_it_was_looked_at(site, make_media):
    other = await asyncio.start_server(site.serve, "127.0.0.2", site.port)
    answers = [["127.0.0.1"], ["127.0.0.2"]]
    asked = []

    async def resolve(host, port):
        asked.append((host, port))
        return answers[len(asked) - 1]

    reached = []

    async def answer(out):
        reached.append(out.get_extra_info("sockname")[0])
        out.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    site.script("/", answer)
    media = make_media(resolve, media_allow_private=True)
    await fetch(media, f"http://rebind.example:{site.port}/", param="p", accept=("document",))
    other.close()
    assert asked == [("rebind.example", site.port)] and reached == ["127.0.0.1"]
    assert f"Host: rebind.example:{site.port}" in site.asked[0]


async def test_a_name_that_was_public_does_not_lead_to_loopback(site, make_media):
    asked = []

    async def resolve(host, port):
        asked.append(host)
        return [PUBLIC] if len(asked) == 1 else ["127.0.0.1"]

    site.page("/", b"secret")
    await refusal(make_media(resolve, media_timeout=1.0), f"http://rebind.example:{site.port}/")
    assert asked == ["rebind.example"] and site.asked == []


async def test_redirects_are_followed_by_hand(site, media, make_media):
    site.page("/d/end", b"here")
    site.redirect("/c", "d/end")
    site.redirect("/b", "/c")
    url = site.redirect("/a", site.url("/b"))
    assert (await fetch(media, url, param="p", accept=("document",))).data == b"here"
    longer = site.redirect("/0", "/a")
    assert "redirects more than 3 times" in await refusal(media, longer)
    assert "more than 3" in await refusal(media, site.redirect("/loop", "/loop"))
    assert "must begin with http" in await refusal(media, site.redirect("/f", "file:///etc/passwd"))
    assert "password" in await refusal(media, site.redirect("/g", f"http://a:b@127.0.0.1:{site.port}/d/end"))

    async def resolve(host, port):
        return ["127.0.0.1"] if host == "first.example" else ["169.254.169.254"]

    guarded = make_media(resolve, media_allowed_hosts=["first.example"])
    site.redirect("/meta", "http://metadata.example/latest/meta-data/")
    assert "'metadata.example'" in await refusal(guarded, f"http://first.example:{site.port}/meta")


async def test_statuses_and_broken_servers(site, media):
    assert "status 404" in await refusal(media, site.page("/no", b"x", status="404 Not Found"))
    assert "status 302" in await refusal(media, site.page("/nowhere", b"", status="302 Found"))

    async def cut(out):
        out.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfew")

    assert "cut off" in await refusal(media, site.script("/cut", cut))

    async def gibberish(out):
        out.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")

    assert "web server" in await refusal(media, site.script("/ssh", gibberish))
    assert "does not take the connection" in await refusal(media, "http://127.0.0.1:1/")
    assert "it is empty" in await refusal(media, site.page("/empty", b""))


async def test_a_server_that_does_not_speak_tls(media):
    async def serve(_, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert "does not speak TLS" in await refusal(media, f"https://127.0.0.1:{port}/")
    server.close()


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_endless_answer_is_cut_at_the_limit(site, make_media, chunked):
    sent = 0

    async def endless(out):
        nonlocal sent
        out.write(b"HTTP/1.1 200 OK\r\n" + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n"))
        while not out.is_closing():
            out.write(b"10000\r\n" + b"a" * 65536 + b"\r\n" if chunked else b"a" * 65536)
            await out.drain()
            sent += 65536

    media = make_media(media_allow_private=True, media_max_bytes=10**6)
    assert "larger than this service takes, 1000000 bytes" in await refusal(media, site.script("/", endless))
    assert sent < 20 * 10**6


async def test_an_answer_that_says_it_is_too_large_is_not_read(site, make_media):
    async def announce(out):
        out.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n")
        await asyncio.sleep(3)

    media = make_media(media_allow_private=True, media_max_bytes=10**6)
    started = time.monotonic()
    assert "larger" in await refusal(media, site.script("/", announce))
    assert time.monotonic() - started < 2


async def test_a_slow_drip_ends_in_time(site, make_media):
    async def drip(out):
        out.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not out.is_closing():
            out.write(b"a")
            await out.drain()
            await asyncio.sleep(0.05)

    media = make_media(media_allow_private=True, media_timeout=0.5)
    started = time.monotonic()
    assert "within 0.5 seconds" in await refusal(media, site.script("/", drip))
    assert time.monotonic() - started < 3


async def test_a_resolver_that_hangs_ends_in_time(make_media):
    async def resolve(host, port):
        await asyncio.sleep(60)

    assert "within 0.3 seconds" in await refusal(make_media(resolve, media_timeout=0.3), "http://slow.example/")


async def test_a_gzip_bomb_is_cut_at_the_limit(site, media):
    bomb = gzip.compress(bytes(2**30), 9)
    assert len(bomb) < 1_100_000
    await fetch(
        media, site.page("/ok", gzip.compress(b"fine"), "Content-Encoding: gzip"), param="p", accept=("document",)
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "larger" in await refusal(media, site.page("/", bomb, "Content-Encoding: gzip"))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 200, f"{grown} MiB"


async def test_what_comes_is_judged_by_its_bytes(site, media):
    script = site.page("/a.png", b"#!/bin/sh\necho hi\n", "Content-Type: image/png")
    assert "expected a picture" in await refusal(media, script, accept=("picture",))
    png = site.page("/a.txt", picture(), "Content-Type: text/plain")
    assert "of the type image/png" in await refusal(media, png)
    assert (await media.picture(png, param="p")).media_type == "image/png"


async def test_no_more_are_fetched_at_a_time_than_allowed(site, make_media):
    most = 0

    async def slowly(out):
        nonlocal most
        most = max(most, site.open)
        await asyncio.sleep(0.1)
        out.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    url = site.script("/", slowly)
    media = make_media(media_allow_private=True, media_concurrency=2)
    await asyncio.gather(*(fetch(media, url, param="p", accept=("document",)) for _ in range(6)))
    assert most == 2

    async def hang(out):
        await asyncio.sleep(2)

    media = make_media(media_allow_private=True, media_concurrency=1, media_timeout=0.4)
    hung = site.script("/hang", hang)
    found = await asyncio.gather(
        *(fetch(media, hung, param="p", accept=("document",)) for _ in range(3)), return_exceptions=True
    )
    assert {type(each) for each in found} == {InvalidRequest, Overloaded}


async def test_closing_ends_what_is_under_way(site, media):
    async def hang(out):
        await asyncio.sleep(30)

    fetching = asyncio.create_task(fetch(media, site.script("/", hang), param="p", accept=("document",)))
    while not site.asked:
        await asyncio.sleep(0.01)
    await media.close()
    assert fetching.cancelled()
    with pytest.raises(Overloaded):
        await fetch(media, site.url("/"), param="p", accept=("document",))


async def test_tls_is_checked_by_name(make_media, monkeypatch, tmp_path):
    authority = trustme.CA()
    names = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("safe.example").configure_cert(context)
    context.sni_callback = lambda _, name, __: names.append(name)

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsafe")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]

    async def resolve(host, port):
        return ["127.0.0.1"]

    url = f"https://safe.example:{port}/"
    strange = await refusal(make_media(resolve, media_allow_private=True), url)
    assert "certificate of its host is not valid" in strange
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    media = make_media(resolve, media_allow_private=True)
    assert (await fetch(media, url, param="p", accept=("document",))).data == b"safe"
    assert "certificate" in await refusal(media, f"https://other.example:{port}/")
    server.close()
    assert names == ["safe.example", "safe.example", "other.example"]
