"""A dialect without OpenAI's bodies: its answers, and all failures on its paths, have its own format."""

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import APIRouter
from pydantic import SecretStr
from starlette.responses import Response

from gateway.app import create_app
from gateway.dialects import DIALECTS
from gateway.dialects.dialect import Dialect, DialectTable
from gateway.http.routes import route_class
from gateway.settings import Settings
from tests.fakes.examples import import_example
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.image_requests import encoded_image
from tests.wire.openai.text_requests import CHAT, check_error

pytestmark = pytest.mark.asyncio(loop_scope="session")

EXAMPLE: Dialect = import_example("dialect", "gateway.dialects.toy").DIALECT
TALK = "/toy/v1/chat/completions"  # the path also fits the pattern of a platform's chats
KEY_HEADER = "X-Toy-Key"
HEADERS = {KEY_HEADER: "sk-toy"}

protected = APIRouter(route_class=route_class(EXAMPLE.errors, authorize=lambda request: "anybody"))
unprotected = APIRouter()


@protected.get("/toy/v1/broken")
async def broken() -> Response:
    """Fail within a route of the dialect's class."""
    raise ZeroDivisionError("a secret")


@unprotected.get("/toy/v1/unprotected")
async def unprotected_route() -> Response:
    """Fail within a route of no class of the dialect's."""
    raise ZeroDivisionError("a secret")


TOY = replace(EXAMPLE, routers=(*EXAMPLE.routers, protected, unprotected))


def lines(engine: str, **more: Any) -> dict[str, Any]:
    return {"engine": engine, "lines": [{"who": "me", "says": "Hello!"}], **more}


def check_oops(response: httpx.Response, status: int, code: str, where: str | None = None) -> str:
    """Check a failure in the toy's format, and return its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/x-toy" and response.headers["x-request-id"]
    body = response.json()
    assert set(body) == {"oops", "where", "because"}
    assert (body["oops"], body["where"]) == (code, where)
    return str(body["because"])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def toy(triton: FakeTriton) -> AsyncIterator[RunningGateway]:
    async with run_gateway(triton.url, dialects=[*DIALECTS, TOY], api_keys=["sk-toy"]) as running:
        yield running


async def test_a_whole_answer(toy: RunningGateway, triton: FakeTriton) -> None:
    response = await toy.http.post(TALK, json=lines("hello"), headers=HEADERS)
    expected = await toy.http.post(CHAT.path, json=CHAT.body("hello"), headers={"Authorization": "Bearer sk-toy"})
    assert response.status_code == 200 and response.json() == {"reply": CHAT.text(expected)}
    assert "Hello!" in str(triton.calls[-1].tensors["text_input"])


async def test_a_stream(toy: RunningGateway) -> None:
    response = await toy.http.post(TALK, json=lines("spaced", live=True), headers=HEADERS)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [dict(row.split(": ", 1) for row in block.split("\n")) for block in response.text.strip().split("\n\n")]
    assert {event["event"] for event in events[:-1]} == {"word"} and len(events) > 2
    assert events[-1] == {"event": "end", "data": "{}"}
    whole = await toy.http.post(TALK, json=lines("spaced"), headers=HEADERS)
    assert "".join(json.loads(event["data"])["word"] for event in events[:-1]) == whole.json()["reply"]


async def test_an_image_in_base64(toy: RunningGateway, triton: FakeTriton) -> None:
    image = encoded_image()
    shown = {"who": "me", "says": "?", "shows": base64.b64encode(image).decode()}
    response = await toy.http.post(TALK, json={"engine": "sighted", "lines": [shown]}, headers=HEADERS)
    assert response.json() == {"reply": "A cat."} and triton.calls[-1].tensors["image"] == [base64.b64encode(image)]
    shown["shows"] = "no image"
    response = await toy.http.post(TALK, json={"engine": "sighted", "lines": [shown]}, headers=HEADERS)
    check_oops(response, 400, "invalid_value", "lines[0].shows")


async def test_a_late_failure_of_a_stream(toy: RunningGateway) -> None:
    response = await toy.http.post(TALK, json=lines("broken-later", live=True), headers=HEADERS)
    assert response.status_code == 200
    *words, last = response.text.strip().split("\n\n")
    assert words and all(word.startswith("event: word\n") for word in words)
    name, data = last.split("\n")
    assert name == "event: oops" and json.loads(data.removeprefix("data: "))["oops"] == "model_failed"


async def test_failures_in_routes(toy: RunningGateway) -> None:
    response = await toy.http.post(TALK, json=lines("hello", live="yes"), headers=HEADERS)
    check_oops(response, 400, "invalid_value", "live")
    check_oops(await toy.http.post(TALK, content=b"{", headers=HEADERS), 400, "invalid_value")
    check_oops(await toy.http.post(TALK, json=lines("nobody"), headers=HEADERS), 404, "model_not_found", "model")
    for headers in ({}, {KEY_HEADER: "wrong"}, {"Authorization": "Bearer sk-toy"}):
        message = check_oops(await toy.http.post(TALK, json=lines("hello"), headers=headers), 401, "invalid_api_key")
        assert KEY_HEADER in message
    assert "secret" not in check_oops(await toy.http.get("/toy/v1/broken", headers=HEADERS), 500, "internal_error")


async def test_failures_outside_routes(toy: RunningGateway, triton: FakeTriton) -> None:
    check_oops(await toy.http.post("/toy/v1/nothing"), 404, "not_found")
    check_oops(await toy.http.get("/toy"), 404, "not_found")
    response = await toy.http.delete(TALK)
    assert "POST" in check_oops(response, 405, "method_not_allowed") and response.headers["allow"] == "POST"
    response = await toy.http.post("/toy/v1/broken")
    check_oops(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD"
    async with run_gateway(triton.url, dialects=[*DIALECTS, TOY]) as keyless:
        for path in (TALK, "/toy/nothing"):
            check_oops(await keyless.http.get(path, headers={"Host": "evil.example"}), 403, "permission_denied", "Host")
        check_error(
            await keyless.http.get("/v1/models", headers={"Host": "evil.example"}),
            403,
            "permission_error",
            param="Host",
        )


async def test_an_exception_that_no_route_has_caught() -> None:
    app = create_app(Settings(triton_urls=["127.0.0.1:1"], log_level="error"), dialects=[*DIALECTS, TOY])
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.get("/toy/v1/unprotected", headers={"X-Request-Id": "mine"})
    assert "secret" not in check_oops(response, 500, "internal_error")
    assert response.headers["x-request-id"] == "mine"


async def test_other_paths_keep_their_format(toy: RunningGateway) -> None:
    for path in ("/v1/nothing", "/toys", "/nothing", "/tritonic/v1/nothing", "/"):
        check_error(await toy.http.get(path), 404)


async def test_the_document_describes_it() -> None:
    app = create_app(Settings(triton_urls=["127.0.0.1:1"], api_keys=[SecretStr("sk-toy")]), dialects=[*DIALECTS, TOY])
    document = app.openapi()
    assert {"Oops", "Reply", "Word", "ErrorResponse"} <= set(document["components"]["schemas"])
    responses = document["paths"][TALK]["post"]["responses"]
    assert responses["400"]["content"]["application/x-toy"]["schema"] == {"$ref": "#/components/schemas/Oops"}
    assert "[DONE]" not in json.dumps(responses)


def dialect(name: str, *prefixes: str) -> Dialect:
    return Dialect(name=name, prefixes=prefixes, routers=(), errors=TOY.errors)


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("/v1", "first"),
        ("/v1/models", "first"),
        ("/v1/messages", "messages"),
        ("/v1/messages/batches", "messages"),
        ("/v1/messagesx", "first"),
        ("/any/v1", "pattern"),
        ("/any/v1/x", "pattern"),
        ("/any/v2", "first"),
        ("/toy", "toy"),
        ("/toy/v1/x", "toy"),
        ("/", "first"),
        ("//v1", "first"),
        ("/" + "a/" * 10_000, "first"),
    ],
)
async def test_who_owns_a_path(path: str, owner: str) -> None:
    first, pattern = dialect("first", "/v1"), dialect("pattern", "/{name}/v1")
    toy, messages = dialect("toy", "/toy"), dialect("messages", "/v1/messages")
    table = DialectTable([first, pattern, toy, messages])
    assert table.find(path).name == owner
    assert [found.name for found in table.in_order()] == ["messages", "first", "toy", "pattern"]


async def test_a_prefix_has_one_owner() -> None:
    with pytest.raises(ValueError, match="first"):
        DialectTable([dialect("first", "/{a}/v1"), dialect("second", "/{b}/v1")])
