"""Trusted hosts and origins, with and without keys; and other unusual headers."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.fakes.triton import FakeTriton
from tests.wire.conftest import KEYS, ORIGIN
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import CHAT

pytestmark = pytest.mark.asyncio(loop_scope="session")

EVIL = "http://evil.example"
BEARER = {"Authorization": f"Bearer {KEYS[0]}"}
PATHS = ("/v1/models", "/tritonic/v1/models", "/health/live", "/metrics", "/nothing", "/files/a")


async def send_raw(running: RunningGateway, *lines: bytes, body: bytes = b"") -> tuple[int, bytes]:
    """Return the status and the body of the response to a request with exactly these header lines."""
    port = int(running.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\r\n".join((*lines, b"Connection: close", b"", body)))
    response = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return int(response.split(b" ")[1]), response.partition(b"\r\n\r\n")[2]


def request_line(path: str, version: str = "1.1") -> bytes:
    return f"GET {path} HTTP/{version}".encode()


def check_forbidden(response: httpx.Response, param: str, setting: str) -> None:
    error = response.json()["error"]
    assert response.status_code == 403, response.text
    assert (error["type"], error["code"], error["param"]) == ("permission_error", "permission_denied", param)
    assert setting in error["message"] and response.headers["x-request-id"]


@pytest_asyncio.fixture(loop_scope="session")
async def configured(triton: FakeTriton) -> AsyncIterator[RunningGateway]:
    names = "gateway, *.cluster.local, 10.0.0.1, ::2"
    async with run_gateway(
        triton.url, allowed_hosts=names, public_url="https://api.example/", cors_origins=[ORIGIN]
    ) as gateway:
        yield gateway


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:1088", "localhost.:80", "127.0.0.1", "127.8.9.1:5", "[::1]:1088", "[0:0::1]"]
)
async def test_loopback_hosts_are_accepted(gateway: RunningGateway, host: str) -> None:
    for path in ("/v1/models", "/health/live"):
        assert (await gateway.http.get(path, headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:1088",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.1",
        "10.0.0.1",
        "[::2]",
    ],
)
async def test_an_unknown_host_name_is_refused(gateway: RunningGateway, host: str) -> None:
    """DNS rebinding: page and request have the same origin, so that only `Host` reveals the attack."""
    for path in PATHS:
        headers = {"Host": host, "Origin": f"http://{host}"}
        check_forbidden(await gateway.http.get(path, headers=headers), "Host", "TRITONIC_ALLOWED_HOSTS")
    response = await gateway.http.post(CHAT.path, json=CHAT.body("hello"), headers={"Host": host})
    check_forbidden(response, "Host", "TRITONIC_ALLOWED_HOSTS")


async def test_the_host_it_listens_on_is_accepted(triton: FakeTriton) -> None:
    async with run_gateway(triton.url, host="gateway.internal") as running:
        assert (await running.http.get("/v1/models", headers={"Host": "gateway.internal:1"})).status_code == 200


async def test_a_wildcard_accepts_every_host(triton: FakeTriton) -> None:
    async with run_gateway(triton.url, allowed_hosts="*") as running:
        assert (await running.http.get("/v1/models", headers={"Host": "evil.example"})).status_code == 200
        assert (await running.http.get("/v1/models", headers={"Host": "evil example"})).status_code == 400


async def test_hosts_of_the_settings_are_accepted(configured: RunningGateway) -> None:
    for host in ("gateway:1088", "GATEWAY", "a.b.cluster.local", "10.0.0.1:80", "[::2]", "api.example", "localhost"):
        assert (await configured.http.get("/v1/models", headers={"Host": host})).status_code == 200, host
    for host in ("gateway.evil.example", "cluster.local", "evilcluster.local", "10.0.0.2", "[::3]"):
        response = await configured.http.get("/v1/models", headers={"Host": host})
        check_forbidden(response, "Host", "TRITONIC_ALLOWED_HOSTS")


async def test_with_keys_every_host_is_accepted_unless_some_are_configured(
    guarded: RunningGateway, triton: FakeTriton
) -> None:
    assert (await guarded.http.get("/v1/models", headers={"Host": "any.example", **BEARER})).status_code == 200
    async with run_gateway(triton.url, api_keys=KEYS, allowed_hosts="api.example") as running:
        for host, status in (("api.example", 200), ("127.0.0.1", 200), ("evil.example", 403)):
            assert (await running.http.get("/v1/models", headers={"Host": host, **BEARER})).status_code == status


async def test_a_platform_without_keys_checks_hosts_and_origins(triton: FakeTriton) -> None:
    async with run_gateway(triton.url, api_keys=KEYS, platforms={"tritonic": {}, "node": {"keys": []}}) as running:
        chat, body = "/node/v1/chat/completions", CHAT.body("hello")
        assert (await running.http.post(chat, json=body)).status_code == 200
        check_forbidden(
            await running.http.post(chat, json=body, headers={"Host": "evil.example"}), "Host", "ALLOWED_HOSTS"
        )
        check_forbidden(await running.http.post(chat, json=body, headers={"Origin": EVIL}), "Origin", "CORS_ORIGINS")
        for headers in ({"Host": "evil.example"}, {"Origin": EVIL}):
            assert (
                await running.http.post("/tritonic/v1/chat/completions", json=body, headers=headers)
            ).status_code == 401


@pytest.mark.parametrize(
    "origin", [EVIL, "null", "http://localhost", "https://127.0.0.1:1", "", "\u00e9", "chrome-extension://a"]
)
async def test_other_origins_are_refused(gateway: RunningGateway, triton: FakeTriton, origin: str) -> None:
    before = len(triton.calls)
    headers: Any = {"Origin": origin.encode("latin-1"), "Content-Type": "text/plain"}
    for path in PATHS:
        check_forbidden(await gateway.http.get(path, headers=headers), "Origin", "TRITONIC_CORS_ORIGINS")
    for path in ("/v1/chat/completions", "/tritonic/v1/chat/completions", "/v1/images/generations", "/nothing"):
        response = await gateway.http.post(path, content=json.dumps(CHAT.body("hello")), headers=headers)
        check_forbidden(response, "Origin", "TRITONIC_CORS_ORIGINS")
    assert len(triton.calls) == before


async def test_sec_fetch_site_decides_where_no_origin_is_sent(
    gateway: RunningGateway,
) -> None:
    body = json.dumps(CHAT.body("hello"))
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json"):  # curl -d
        assert (await gateway.http.post(CHAT.path, content=body, headers={"Content-Type": kind})).status_code == 200
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        headers = {"Sec-Fetch-Site": site}
        assert (await gateway.http.post(CHAT.path, content=body, headers=headers)).status_code == status, site
        # A picture, or a link to the documentation, on another's page.
        assert (await gateway.http.get("/docs", headers=headers)).status_code == 200


async def test_configured_origins_are_accepted(gateway: RunningGateway, configured: RunningGateway) -> None:
    own = {"Origin": gateway.url}
    assert (await gateway.http.post(CHAT.path, json=CHAT.body("hello"), headers=own)).status_code == 200
    proxied = {"Host": "api.example", "Origin": "https://api.example"}
    for headers in (proxied, {"Origin": "https://api.example"}, {"Origin": ORIGIN}):
        response = await configured.http.post(CHAT.path, json=CHAT.body("hello"), headers=headers)
        assert response.status_code == 200, headers
    assert response.headers["access-control-allow-origin"] == ORIGIN
    preflight = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    assert (await configured.http.options(CHAT.path, headers=preflight)).status_code == 200


@pytest.mark.parametrize(
    "hosts",
    [
        (),
        (b"localhost", b"localhost"),
        (b"localhost", b"evil.example"),
        (b"",),
        (b"local host",),
        (b"localhost:port",),
        (b"localhost:123456",),
        (b"a,b",),
        (b"localhost/",),
        (b"me@localhost",),
        (b"[::1",),
        (b"[1::2::3]",),
        (b"[]",),
        (b"::1",),
        (b"-a",),
        (b"a" * 256,),
        (b"\xff",),
        (b"http://localhost",),
    ],
    ids=repr,
)
async def test_the_host_header_must_be_one_valid_host(
    gateway: RunningGateway, guarded: RunningGateway, hosts: tuple[bytes, ...]
) -> None:
    lines = tuple(b"Host: " + host for host in hosts)
    for running in (gateway, guarded):
        for path in PATHS:
            status, body = await send_raw(running, request_line(path), *lines)
            error = json.loads(body)["error"]
            assert (status, error["type"], error["param"]) == (400, "invalid_request_error", "Host")


async def test_http_1_0_needs_no_host(gateway: RunningGateway) -> None:
    assert (await send_raw(gateway, request_line("/health/live", "1.0")))[0] == 200
    assert (await send_raw(gateway, request_line("/v1/models", "1.0"), b"Host: evil.example"))[0] == 403


GARBAGE = [
    b"a:b",
    b"",
    b",",
    b"::::",
    b"[",
    b"[::1",
    b"1.2.3.4:5:6",
    b"fe80::1%" + b"a" * 9000,
    b"\xff\xfe",
    b"unknown",
    b"9" * 5000,
]


@pytest.mark.parametrize(
    "name", [b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Host", b"X-Request-Id", b"Forwarded"]
)
async def test_invalid_proxy_and_id_headers_are_harmless(triton: FakeTriton, name: bytes) -> None:
    async with run_gateway(triton.url, rate_limits="100/hour") as running:
        body = json.dumps(CHAT.body("hello")).encode()
        for garbage in GARBAGE:
            lines = (b"Host: localhost", name + b": " + garbage, b"Content-Length: %d" % len(body))
            assert (await send_raw(running, f"POST {CHAT.path} HTTP/1.1".encode(), *lines, body=body))[0] == 200, (
                garbage
            )
        response = await running.http.post(CHAT.path, json=CHAT.body("hello"))
        # Invalid addresses are ignored: all were the same caller, except for one address of an interface.
        same = len(GARBAGE) - (name == b"X-Forwarded-For")
        assert int(response.headers["x-ratelimit-remaining-requests"]) == 100 - same - 1


@pytest.mark.parametrize(
    "key", [b"Bearer " + b"a" * 60_000, b"Bearer \xff\xfe", b"Bearer", b"\x09", b"Bearer " + b" " * 60_000]
)
async def test_malformed_keys_are_refused(guarded: RunningGateway, key: bytes) -> None:
    status, body = await send_raw(guarded, request_line("/v1/models"), b"Host: localhost", b"Authorization: " + key)
    assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/%ff%00%zz",
        "/%2e%2e/v1",
        "/v1/models/" + "%41" * 2000,
        "/?%zz=%ff",
        "/files/%00?expires=%ff&signature=%zz",
        "//[",
        "/v1/models?" + "a&" * 4000,
    ],
)
async def test_unusual_paths_get_a_response(gateway: RunningGateway, path: str) -> None:
    for version in ("1.0", "1.1"):
        status, body = await send_raw(gateway, request_line(path, version), b"Host: localhost")
        assert status in (200, 403, 404) and body
