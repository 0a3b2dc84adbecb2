"""HTTP beyond bodies: HTTP/1.0, `HEAD`, trailing slashes, preflights, and events that no line break splits."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from gateway.app import create_app
from gateway.settings import Settings
from tests.fakes.triton import FakeTriton
from tests.wire.conftest import KEYS, ORIGIN
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import CHAT, CHAT_STREAM, STREAM_ROUTES, TEXT_ROUTES, TextRoute, check_error
from tests.wire.scripted_models import MULTILINGUAL_TEXTS

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def send_raw(running: RunningGateway, *requests: bytes) -> bytes:
    """Return everything that a connection receives until the gateway closes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
    writer.write(b"".join(requests))
    response = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return response


def http_1_0_request(route: TextRoute, *headers: bytes, model: str = "hello") -> bytes:
    body = json.dumps(route.body(model)).encode()
    return b"\r\n".join(
        (b"POST %b HTTP/1.0" % route.path.encode(), b"Content-Length: %d" % len(body), *headers, b"", body)
    )


@pytest.mark.parametrize("route", STREAM_ROUTES, ids=str)
async def test_a_stream_of_http_1_0_is_plain_and_ends_with_the_connection(
    gateway: RunningGateway, route: TextRoute
) -> None:
    for headers in ((), (b"Connection: keep-alive",), (b"Host: localhost",)):
        head, _, body = (await send_raw(gateway, http_1_0_request(route, *headers))).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ") and b"\r\nconnection: close" in head
        assert b"transfer-encoding" not in head and b"content-length" not in head
        blocks = body.decode().removesuffix("\n\n").split("\n\n")
        assert len(blocks) >= 4 and all(block.startswith("data: ") for block in blocks)
        assert blocks[-1] == "data: [DONE]" and [json.loads(block[6:]) for block in blocks[:-1]]


async def test_http_1_0_keep_alive_is_respected(gateway: RunningGateway) -> None:
    keep = b"Connection: Keep-Alive"
    response = await send_raw(
        gateway,
        http_1_0_request(CHAT, keep),
        b"GET /health/live HTTP/1.0\r\n" + keep + b"\r\n\r\n",
        http_1_0_request(CHAT),
    )
    assert response.count(b"HTTP/1.1 200 OK") == 3 and response.count(b"\r\nconnection: keep-alive\r\n") == 2
    assert response.count(b'"finish_reason":"stop"') == 2
    assert (await send_raw(gateway, http_1_0_request(CHAT, model="nobody"))).startswith(b"HTTP/1.1 404 ")


def _paths() -> list[str]:
    """Return every path of the gateway that takes GET."""
    paths: dict[str, None] = {}
    for path, operations in create_app(Settings(triton_urls=["127.0.0.1:1"])).openapi()["paths"].items():
        if "get" in operations:
            paths[
                path.format(model_id="hello", platform="tritonic", task_id="none", video_id="none", file="none.png")
            ] = None
    return [*paths, "/v1/models/org/served", "/docs", "/openapi.json", "/nothing"]


@pytest.mark.parametrize("path", _paths())
async def test_head_answers_as_get_does_without_the_body(
    gateway: RunningGateway, guarded: RunningGateway, path: str
) -> None:
    for running, headers in ((gateway, {}), (guarded, {}), (guarded, {"Authorization": f"Bearer {KEYS[0]}"})):
        got = await running.http.get(path, headers=headers)
        head = await running.http.head(path, headers=headers)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert head.headers["content-type"] == got.headers["content-type"]
        if path != "/metrics":  # its numbers grow
            named_twice = len("HEAD" * 2) - len("GET" * 2) if path == "/nothing" else 0
            assert int(head.headers["content-length"]) == len(got.content) + named_twice
    after = await send_raw(gateway, b"HEAD %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path.encode())
    assert after.endswith(b"\r\n\r\n") and after.count(b"\r\n\r\n") == 1


async def test_head_requests_are_counted_as_head(gateway: RunningGateway) -> None:
    response = await gateway.http.post("/health/live")
    assert response.status_code == 405 and response.headers["allow"] == "GET, HEAD"
    assert "Supported methods: GET, HEAD." in response.text
    response = await gateway.http.head(CHAT.path)
    assert response.status_code == 405 and response.headers["allow"] == "POST"
    document = (await gateway.http.get("/openapi.json")).json()
    assert not [path for path, operations in document["paths"].items() if "head" in operations]
    counter = 'tritonic_requests_total{model="",route="/v1/models",status="200"}'
    before = (await gateway.metrics()).get(counter, 0)
    await gateway.http.head("/v1/models")
    assert (await gateway.metrics())[counter] == before + 1


@pytest.mark.parametrize("route", TEXT_ROUTES, ids=str)
async def test_a_trailing_slash_is_ignored(gateway: RunningGateway, guarded: RunningGateway, route: TextRoute) -> None:
    response = await gateway.http.post(f"{route.path}/", json=route.body("hello"))
    assert response.status_code == 200 and route.text(response)
    check_error(await guarded.http.post(f"{route.path}/", json=route.body("hello")), 401, "authentication_error")


async def test_slashes_of_other_paths(gateway: RunningGateway) -> None:
    for path in ("/v1/models", "/v1/models/hello", "/v1/models/org/served", "/health/live", "/docs", "/openapi.json"):
        got, slashed = await gateway.http.get(path), await gateway.http.get(f"{path}/")
        assert (slashed.status_code, slashed.headers["content-type"]) == (200, got.headers["content-type"])
        assert (await gateway.http.head(f"{path}/")).status_code == 200
    for path in ("/", "/v1/", "/health/live//", "//health/live", "/health//live", "/nothing/"):
        check_error(await gateway.http.get(path), 404)
    check_error(await gateway.http.get("/v1/models//"), 404, code="model_not_found", param="model")
    for path in (f"{CHAT.path}//", f"/{CHAT.path}"):
        check_error(await gateway.http.post(path, json=CHAT.body("hello")), 404)


PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Private-Network": "true"}
ALLOWS = "access-control-allow-private-network"


@pytest_asyncio.fixture(loop_scope="session")
async def keyless(triton: FakeTriton) -> AsyncIterator[RunningGateway]:
    async with run_gateway(triton.url, cors_origins=[f"{ORIGIN}/"]) as running:
        yield running


async def test_pages_of_allowed_origins_may_reach_a_private_network(
    guarded: RunningGateway, keyless: RunningGateway
) -> None:
    for running in (guarded, keyless):
        for path in (CHAT.path, f"{CHAT.path}/", "/v1/models"):
            response = await running.http.options(path, headers={"Origin": ORIGIN, **PREFLIGHT})
            assert response.status_code == 200, response.text
            assert response.headers[ALLOWS] == "true"
            assert response.headers["access-control-allow-origin"] == ORIGIN
        plain = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
        assert ALLOWS not in (await running.http.options(CHAT.path, headers=plain)).headers


async def test_other_origins_are_refused(
    guarded: RunningGateway, keyless: RunningGateway, gateway: RunningGateway
) -> None:
    for running in (guarded, keyless, gateway):
        response = await running.http.options(CHAT.path, headers={"Origin": "https://evil.example", **PREFLIGHT})
        assert response.status_code >= 400
        assert ALLOWS not in response.headers and "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("path", [CHAT_STREAM.path, "/v1/completions", "/tritonic/v1/chat/completions"])
async def test_unicode_line_breaks_do_not_split_events(gateway: RunningGateway, path: str) -> None:
    """Clients that split lines at Unicode line breaks, such as httpx's `iter_lines`, get whole events too."""
    body = CHAT_STREAM.body("tongues") | {"prompt": "Hello!"}
    async with gateway.http.stream("POST", path, json=body) as response:
        assert response.status_code == 200
        lines = [line async for line in response.aiter_lines() if line]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line != "data: [DONE]"]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    text = "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)
    assert text == "".join(MULTILINGUAL_TEXTS) and {"\x85", "\u2028", "\u2029"} < set(text)


async def test_unhandled_exceptions_are_json_with_a_request_id() -> None:
    app = create_app(Settings(triton_urls=["127.0.0.1:1"], log_level="error"))

    async def fails() -> None:
        raise ZeroDivisionError("a secret")

    app.add_api_route("/fails", fails)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.get("/fails", headers={"X-Request-Id": "mine"})
    assert "secret" not in check_error(response, 500, "server_error", "internal_error")
    assert response.headers["x-request-id"] == "mine"
