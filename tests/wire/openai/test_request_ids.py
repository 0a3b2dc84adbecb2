"""A request keeps one id: in the client's header, in Triton, and in the response."""

from typing import Any

import pytest

from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.text_requests import CHAT, TEXT_ROUTES, TextRoute

pytestmark = pytest.mark.asyncio(loop_scope="session")

GOOD = ["a", "req-1", "9f1c2e34-7a61-4f11-8a3b-0d0f4a1b2c3d", "A_b.c:1/2", "x" * 128]
ODD = [
    *("x" * 129, "x" * 5000, "two words", "semi;colon", "<script>", '"quoted"', "a\tb", ""),
    *("é".encode("latin-1"), "é".encode(), b"\xff"),
]


async def post_and_get_id(gateway: RunningGateway, triton: FakeTriton, route: TextRoute, headers: Any) -> str:
    """Return the id of the response, and check that Triton got the same one."""
    response = await gateway.http.post(route.path, json=route.body("hello"), headers=headers)
    assert response.status_code == 200
    assert triton.calls[-1].id == response.headers["x-request-id"]
    return str(response.headers["x-request-id"])


@pytest.mark.parametrize("route", TEXT_ROUTES, ids=str)
async def test_the_request_id_of_the_client_is_used(
    gateway: RunningGateway, triton: FakeTriton, route: TextRoute
) -> None:
    for request_id in GOOD:
        assert await post_and_get_id(gateway, triton, route, {"X-Request-ID": request_id}) == request_id


@pytest.mark.parametrize("route", TEXT_ROUTES, ids=str)
async def test_a_request_id_is_generated_where_none_is_sent(
    gateway: RunningGateway, triton: FakeTriton, route: TextRoute
) -> None:
    ids = {await post_and_get_id(gateway, triton, route, {}) for _ in range(5)}
    assert len(ids) == 5 and all(len(name) >= 16 for name in ids)


@pytest.mark.parametrize("request_id", ODD, ids=[repr(request_id)[:20] for request_id in ODD])
async def test_an_invalid_request_id_is_replaced(
    gateway: RunningGateway, triton: FakeTriton, request_id: str | bytes
) -> None:
    new_id = await post_and_get_id(gateway, triton, CHAT, {"X-Request-ID": request_id})
    assert (
        new_id != request_id
        and 16 <= len(new_id) <= 128
        and new_id.isascii()
        and new_id.isprintable()
        and " " not in new_id
    )


async def test_failures_have_the_request_id(gateway: RunningGateway) -> None:
    headers = {"x-request-id": "mine"}
    for response in (
        await gateway.http.post(CHAT.path, content=b"no", headers=headers),
        await gateway.http.post(CHAT.path, json=CHAT.body("broken"), headers=headers),
        await gateway.http.get("/nowhere", headers=headers),
        await gateway.http.get(CHAT.path, headers=headers),
        await gateway.http.get("/health/live", headers=headers),
    ):
        assert response.headers["x-request-id"] == "mine"


async def test_the_official_client_returns_the_request_id(gateway: RunningGateway) -> None:
    async with gateway.client(default_headers={"x-request-id": "from-the-sdk"}) as client:
        answer = await client.chat.completions.create(**CHAT.body("hello"))
    assert answer._request_id == "from-the-sdk"
