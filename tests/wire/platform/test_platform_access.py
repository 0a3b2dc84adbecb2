"""Platforms: which exist, which keys they accept, and which models they have."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import check_error
from tests.wire.platform.chat_requests import chat_body

pytestmark = pytest.mark.asyncio(loop_scope="session")

PLATFORMS = {
    "all": {},
    "open": {"keys": []},
    "own": {"keys": ["sk-own", "sk-other"], "models": ["hello", "org/served", "unloaded"]},
    "none": {"models": []},
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def platforms(triton: FakeTriton) -> AsyncIterator[RunningGateway]:
    async with run_gateway(triton.url, platforms=PLATFORMS, api_keys=["sk-gateway"]) as gateway:
        yield gateway


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


@pytest.mark.parametrize(
    ("platform", "key", "status"),
    [
        ("all", "sk-gateway", 200),
        ("all", "sk-own", 401),
        ("all", "", 401),
        ("open", "", 200),
        ("open", "sk-anything", 200),
        ("own", "sk-own", 200),
        ("own", "sk-other", 200),
        ("own", "sk-gateway", 401),
        ("own", "", 401),
        ("tritonic", "sk-gateway", 404),
        ("ALL", "sk-gateway", 404),
        ("v1", "sk-gateway", 404),
    ],
)
async def test_each_platform_has_its_own_keys(platforms: RunningGateway, platform: str, key: str, status: int) -> None:
    body = chat_body("Hello!") | {"model": "hello"}
    response = await platforms.http.post(f"/{platform}/v1/chat/completions", json=body, headers=bearer(key))
    if status == 200:
        assert response.status_code == 200, response.text
    elif status == 401:
        check_error(response, 401, "authentication_error", "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
    else:
        check_error(response, 404, code="not_found", param="platform")


@pytest.mark.parametrize(
    ("platform", "model", "known"),
    [
        ("own", "echo", "hello, org/served."),
        ("own", "unloaded", "hello, org/served."),
        ("own", "nothing", "hello, org/served."),
        ("none", "hello", "Models: none."),
        ("none", "nothing", "Models: none."),
    ],
)
async def test_models_of_other_platforms_are_not_found(
    platforms: RunningGateway, platform: str, model: str, known: str
) -> None:
    """The error does not list models of other platforms either."""
    key = "sk-own" if platform == "own" else "sk-gateway"
    body = chat_body("Hello!") | {"model": model}
    response = await platforms.http.post(f"/{platform}/v1/chat/completions", json=body, headers=bearer(key))
    assert known in check_error(response, 404, code="model_not_found", param="model")


async def test_a_gateway_without_keys_has_an_open_default_platform(gateway: RunningGateway) -> None:
    body = chat_body("Hello!") | {"model": "hello"}
    assert (await gateway.http.post("/tritonic/v1/chat/completions", json=body)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/tritonic/v1/chat/completions", 405),
        ("POST", "/tritonic/v1/embeddings", 404),
        ("POST", "/tritonic/v1/videos/edits", 405),
        ("GET", "/tritonic/v1/videos/task_1", 404),
        ("POST", "/tritonic/v1", 404),
        ("POST", "/tritonic/chat/completions", 404),
        ("POST", "/tritonic%2Fx/v1/chat/completions", 404),
    ],
)
async def test_unknown_routes_of_a_platform_are_refused(
    gateway: RunningGateway, method: str, path: str, status: int
) -> None:
    response = await gateway.http.request(method, path, json={})
    assert response.status_code == status
    assert response.json()["error"]["message"] and response.json()["code"] == 1001
