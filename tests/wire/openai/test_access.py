"""Who may call: API keys, and pages of other origins."""

import pytest

from tests.fakes.triton import FakeTriton
from tests.wire.conftest import KEYS, ORIGIN
from tests.wire.openai.asking import CHAT, CHAT_STREAM, WAYS, Way, refused
from tests.wire.serving import Gateway, serve

pytestmark = pytest.mark.asyncio(loop_scope="session")

GOOD = {"Authorization": f"Bearer {KEYS[0]}"}
WRONG = {
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
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_no_key_no_answer(guarded: Gateway, triton: FakeTriton, way: Way, name: str) -> None:
    before = len(triton.calls)
    response = await guarded.http.post(way.path, json=way.body("hello"), headers=WRONG[name])
    sentence = refused(response, 401, "authentication_error", "invalid_api_key")
    assert "key" in sentence and not any(key in sentence for key in KEYS)
    assert len(triton.calls) == before


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/hello"])
async def test_models_are_for_those_with_keys(guarded: Gateway, path: str) -> None:
    refused(await guarded.http.get(path), 401, "authentication_error", "invalid_api_key")
    assert (await guarded.http.get(path, headers=GOOD)).status_code == 200


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_each_key_opens(guarded: Gateway, key: str, scheme: str) -> None:
    for way in WAYS:
        headers = {"Authorization": f"{scheme} {key}"}
        assert (await guarded.http.post(way.path, json=way.body("hello"), headers=headers)).status_code == 200


async def test_a_key_is_asked_for_before_the_body_is_read(guarded: Gateway) -> None:
    refused(await guarded.http.post(CHAT.path, content=b"not JSON"), 401, "authentication_error", "invalid_api_key")


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
async def test_machines_need_no_key(guarded: Gateway, path: str) -> None:
    assert (await guarded.http.get(path)).status_code == 200


async def test_without_keys_anything_goes(gateway: Gateway) -> None:
    for headers in WRONG.values():
        assert (await gateway.http.post(CHAT.path, json=CHAT.body("hello"), headers=headers)).status_code == 200


async def test_a_preflight_needs_no_key(guarded: Gateway) -> None:
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


async def test_every_answer_may_be_read_by_the_page(guarded: Gateway) -> None:
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


async def test_a_page_from_elsewhere_may_not(guarded: Gateway, gateway: Gateway) -> None:
    """Without keys it is refused; with keys it has none, and may not read what an answer says."""
    evil = {"Origin": "https://evil.example"}
    preflight = evil | {"Access-Control-Request-Method": "POST"}
    response = await guarded.http.post(CHAT.path, json=CHAT.body("hello"), headers=evil | GOOD)
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers
    assert "access-control-allow-origin" not in (await guarded.http.options(CHAT.path, headers=preflight)).headers
    open_to_it = await gateway.http.post(CHAT.path, json=CHAT.body("hello"), headers={"Origin": ORIGIN})
    refused(open_to_it, 403, "permission_error", "permission_denied", param="Origin")
    assert "access-control-allow-origin" not in open_to_it.headers


async def test_every_origin_where_the_setting_says_so(triton: FakeTriton) -> None:
    async with serve(triton.url, cors_origins="*") as running:
        response = await running.http.get("/v1/models", headers={"Origin": "https://any.example"})
        assert response.headers["access-control-allow-origin"] in ("*", "https://any.example")
