"""URLs of callers: what they may reach, and by which way."""

import asyncio
import ssl

import pytest
import trustme

from tests.unit.gateway.media.media_samples import DOCUMENT, fetch_blob, fetch_error

PUBLIC = "93.184.216.34"


async def test_a_page_is_fetched(site, media, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    url = site.page("/notes.txt?x=1", b"hello", "Content-Type: text/plain", "Set-Cookie: a=b")
    blob = await fetch_blob(media, url + "#part", param="p", accept=DOCUMENT)
    assert (blob.data, blob.kind, blob.media_type, blob.declared_type, blob.name) == (
        b"hello", "document", "text/plain", "text/plain", "notes.txt",
    )  # fmt: skip
    await fetch_blob(media, url, param="p", accept=DOCUMENT)
    for head in site.requests:
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
    reason = await fetch_error(make_media(), f"http://{host}:{site.port}/")
    assert "public Internet" in reason or "could not be resolved" in reason or "not a valid URL" in reason
    assert site.requests == []


async def test_an_unusual_spelling_of_a_public_address_is_refused_too(make_media):
    assert "not a valid URL" in await fetch_error(make_media(), "http://134744072/")


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
        ("http://no-such-host.invalid/", "could not be resolved"),
        ("just words", "expected an http or https URL"),
        ("", "expected an http or https URL"),
    ],
)
async def test_unsupported_urls_are_refused(media, url, reason):
    assert reason in await fetch_error(media, url)


async def test_a_name_with_one_private_address_is_refused(make_media):
    async def resolve(host, port):
        return [PUBLIC, "10.0.0.8"]

    assert "public Internet" in await fetch_error(make_media(resolve), "http://two.example/")


async def test_allowed_hosts_may_be_private_and_their_redirects_may_not(site, make_media):
    media = make_media(media_allowed_hosts=["LocalHost"])
    site.page("/file", b"inside")
    blob = await fetch_blob(media, f"http://localhost:{site.port}/file", param="p", accept=DOCUMENT)
    assert blob.data == b"inside"
    site.redirect("/away", site.url("/file"))
    assert "public Internet" in await fetch_error(media, f"http://localhost:{site.port}/away")


async def test_the_checked_address_is_the_one_that_is_connected_to(site, make_media):
    other = await asyncio.start_server(site.serve, "127.0.0.2", site.port)
    answers = [["127.0.0.1"], ["127.0.0.2"]]
    lookups = []

    async def resolve(host, port):
        lookups.append((host, port))
        return answers[len(lookups) - 1]

    reached = []

    async def answer(out):
        reached.append(out.get_extra_info("sockname")[0])
        out.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    site.script("/", answer)
    media = make_media(resolve, media_allow_private=True)
    await fetch_blob(media, f"http://rebind.example:{site.port}/", param="p", accept=DOCUMENT)
    other.close()
    assert lookups == [("rebind.example", site.port)] and reached == ["127.0.0.1"]
    assert f"Host: rebind.example:{site.port}" in site.requests[0]


async def test_dns_rebinding_does_not_reach_loopback(site, make_media):
    lookups = []

    async def resolve(host, port):
        lookups.append(host)
        return [PUBLIC] if len(lookups) == 1 else ["127.0.0.1"]

    site.page("/", b"secret")
    await fetch_error(make_media(resolve, media_timeout=1.0), f"http://rebind.example:{site.port}/")
    assert lookups == ["rebind.example"] and site.requests == []


async def test_each_redirect_is_checked(site, media, make_media):
    site.page("/d/end", b"here")
    site.redirect("/c", "d/end")
    site.redirect("/b", "/c")
    url = site.redirect("/a", site.url("/b"))
    assert (await fetch_blob(media, url, param="p", accept=DOCUMENT)).data == b"here"
    longer = site.redirect("/0", "/a")
    assert "redirects more than 3 times" in await fetch_error(media, longer)
    assert "more than 3" in await fetch_error(media, site.redirect("/loop", "/loop"))
    assert "must begin with http" in await fetch_error(media, site.redirect("/f", "file:///etc/passwd"))
    assert "password" in await fetch_error(media, site.redirect("/g", f"http://a:b@127.0.0.1:{site.port}/d/end"))

    async def resolve(host, port):
        return ["127.0.0.1"] if host == "first.example" else ["169.254.169.254"]

    guarded = make_media(resolve, media_allowed_hosts=["first.example"])
    site.redirect("/meta", "http://metadata.example/latest/meta-data/")
    assert "'metadata.example'" in await fetch_error(guarded, f"http://first.example:{site.port}/meta")


async def test_certificates_are_checked_against_the_name(make_media, monkeypatch, tmp_path):
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
    strange = await fetch_error(make_media(resolve, media_allow_private=True), url)
    assert "certificate of its host is not valid" in strange
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    media = make_media(resolve, media_allow_private=True)
    assert (await fetch_blob(media, url, param="p", accept=DOCUMENT)).data == b"safe"
    assert "certificate" in await fetch_error(media, f"https://other.example:{port}/")
    server.close()
    assert names == ["safe.example", "safe.example", "other.example"]
