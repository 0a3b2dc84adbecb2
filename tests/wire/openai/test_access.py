"""API keys and CORS: which requests are authorized, and which pages may send them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.triton import FakeTriton
from tests.wire.conftest import KEYS, ORIGIN
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import CHAT, CHAT_STREAM, TEXT_ROUTES, TextRoute, check_error

pytestmark = pytest.mark.asyncio(loop_scope="session")

GOOD = {"Authorization": f"Bearer {KEYS[0]}"}
WRONG: dict[str, dict[str, Any]] = {
    "none": {},
    "wrong": {"Authorization": "Bearer sk-wrong"},
    "empty": {"Authorization": "Bearer"},
    "no scheme": {"Authorization": KEYS[0]},
    "another scheme": {"Authorization": f"Basic {KEYS[0]}"},
    "half a key": {"Authorization": f"Bearer {KEYS[0][:-1]}"},
    "more than a key": {"Authorization": f"Bearer {KEYS[0]}x"},
    "both keys": {"Authorization": f"Bearer {KEYS[0]},{KEYS[1]}"},
    "not ASCII": {"Authorization": "Bearer sk-first\u00e9".encode("latin-1")},
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("route", TEXT_ROUTES, ids=str)
async def test_requests_without_a_valid_key_are_refused(
    guarded: RunningGateway, triton: FakeTriton, route: TextRoute, name: str
) -> None:
    before = len(triton.calls)
    response = await guarded.http.post(route.path, json=route.body("hello"), headers=WRONG[name])
    sentence = check_error(response, 401, "authentication_error", "invalid_api_key")
    assert "key" in sentence and not any(key in sentence for key in KEYS)
    assert len(triton.calls) == before


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/hello"])
async def test_listing_models_needs_a_key(guarded: RunningGateway, path: str) -> None:
    check_error(await guarded.http.get(path), 401, "authentication_error", "invalid_api_key")
    assert (await guarded.http.get(path, headers=GOOD)).status_code == 200


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_each_key_is_accepted(guarded: RunningGateway, key: str, scheme: str) -> None:
    for route in TEXT_ROUTES:
        headers = {"Authorization": f"{scheme} {key}"}
        assert (await guarded.http.post(route.path, json=route.body("hello"), headers=headers)).status_code == 200


async def test_the_key_is_checked_before_the_body(guarded: RunningGateway) -> None:
    check_error(await guarded.http.post(CHAT.path, content=b"not JSON"), 401, "authentication_error", "invalid_api_key")


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
async def test_health_and_metrics_need_no_key(guarded: RunningGateway, path: str) -> None:
    assert (await guarded.http.get(path)).status_code == 200


async def test_without_configured_keys_any_key_is_accepted(gateway: RunningGateway) -> None:
    for headers in WRONG.values():
        assert (await gateway.http.post(CHAT.path, json=CHAT.body("hello"), headers=headers)).status_code == 200


async def test_a_preflight_needs_no_key(guarded: RunningGateway) -> None:
    asks = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-request-id,x-stainless-lang",
    }
    response = await guarded.http.options(CHAT.path, headers=asks)
    assert response.status_code in (200, 204)
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in response.headers["access-control-allow-methods"]
    allowed = response.headers["access-control-allow-headers"].lower()
    assert allowed == "*" or all(name in allowed for name in ("authorization", "content-type", "x-request-id"))


async def test_every_response_has_cors_headers(guarded: RunningGateway) -> None:
    origin = {"Origin": ORIGIN}
    answers = {
        200: await guarded.http.post(CHAT.path, json=CHAT.body("hello"), headers=origin | GOOD),
        401: await guarded.http.post(CHAT.path, json=CHAT.body("hello"), headers=origin),
        400: await guarded.http.post(CHAT.path, content=b"no", headers=origin | GOOD),
        404: await guarded.http.get("/nowhere", headers=origin | GOOD),
        405: await guarded.http.get(CHAT.path, headers=origin | GOOD),
        502: await guarded.http.post(CHAT.path, json=CHAT.body("broken"), headers=origin | GOOD),
        429: await guarded.http.post(CHAT.path, json=CHAT.body("full"), headers=origin | GOOD),
    }
    for status, response in answers.items():
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == ORIGIN, status
        assert "x-request-id" in response.headers["access-control-expose-headers"].lower()
    stream = await guarded.http.post(CHAT_STREAM.path, json=CHAT_STREAM.body("hello"), headers=origin | GOOD)
    assert stream.headers["access-control-allow-origin"] == ORIGIN


async def test_other_origins_get_no_cors_headers(guarded: RunningGateway, gateway: RunningGateway) -> None:
    """Without configured keys the request is refused. With keys, the page has none, and cannot read the response."""
    evil = {"Origin": "https://evil.example"}
    preflight = evil | {"Access-Control-Request-Method": "POST"}
    response = await guarded.http.post(CHAT.path, json=CHAT.body("hello"), headers=evil | GOOD)
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers
    assert "access-control-allow-origin" not in (await guarded.http.options(CHAT.path, headers=preflight)).headers
    open_to_it = await gateway.http.post(CHAT.path, json=CHAT.body("hello"), headers={"Origin": ORIGIN})
    check_error(open_to_it, 403, "permission_error", "permission_denied", param="Origin")
    assert "access-control-allow-origin" not in open_to_it.headers


async def test_a_wildcard_allows_every_origin(triton: FakeTriton) -> None:
    async with run_gateway(triton.url, cors_origins="*") as running:
        response = await running.http.get("/v1/models", headers={"Origin": "https://any.example"})
        assert response.headers["access-control-allow-origin"] in ("*", "https://any.example")


NOT_ASCII = ["schl\u00fcssel", "\u043a\u043b\u044e\u0447-\u5bc6\u94a5-\U0001f511", "sk-\u00e0"]
"""Keys in Latin-1, beyond it, and one whose last byte in UTF-8 looks like a space in Latin-1."""


@pytest_asyncio.fixture(loop_scope="session")
async def multilingual(triton: FakeTriton) -> AsyncIterator[RunningGateway]:
    async with run_gateway(triton.url, api_keys=["sk-plain", *NOT_ASCII]) as running:
        yield running


@pytest.mark.parametrize("key", NOT_ASCII)
async def test_keys_beyond_ascii_are_utf_8_or_latin_1(multilingual: RunningGateway, key: str) -> None:
    encodings = [key.encode(), *([key.encode("latin-1")] if max(key) < "\u0100" else [])]
    for written in encodings:
        for space in (b"", b" ", b"\t"):
            headers = [(b"Authorization", b"Bearer " + space + written)]
            for path in ("/v1/models", "/tritonic/v1/images"):
                response = await multilingual.http.get(path, headers=headers)
                assert response.status_code == 200, (written, response.text)


async def test_similar_keys_are_refused(multilingual: RunningGateway) -> None:
    for key in NOT_ASCII:
        encodings = {key.encode("latin-1", how) for how in ("replace", "ignore", "xmlcharrefreplace")}
        encodings |= {key.encode("ascii", "replace"), key.encode().decode("latin-1").encode(), key.encode("utf-16")[2:]}
        encodings |= {key.encode()[:-1], key.encode() + b"\xa0"}
        if max(key) < "\u0100":
            encodings.discard(key.encode("latin-1"))
        for written in encodings:
            if b"\0" not in written and written.strip():
                response = await multilingual.http.get("/v1/models", headers=[(b"Authorization", b"Bearer " + written)])
                check_error(response, 401, "authentication_error", "invalid_api_key")


async def test_a_key_is_one_caller_however_it_is_written(multilingual: RunningGateway) -> None:
    """Each key has its own tasks."""
    key = NOT_ASCII[0]
    body = {"model": "shapes", "prompt": "a circle", "stream": False, "async": True}
    bearer = [(b"Authorization", f"Bearer {key}".encode())]
    async with asyncio.timeout(90):  # the first task makes the database, for which a busy machine takes long
        while (
            response := await multilingual.http.post("/tritonic/v1/images/generations", json=body, headers=bearer)
        ).status_code == 503:
            pass
    assert response.status_code == 200, response.text
    listed = [
        (await multilingual.http.get("/tritonic/v1/images", headers=[(b"Authorization", b"Bearer " + written)])).json()
        for written in (key.encode(), key.encode("latin-1"))
    ]
    assert len(listed[0]["data"]) == len(listed[1]["data"]) == 1
