"""Failures of a model: an HTTP status before the first token, and an error event in the stream after it."""

import time
from typing import Any

import openai
import pytest

from tests.fakes.triton import FakeTriton
from tests.wire.conftest import TIMEOUT_SECONDS
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.text_requests import (
    CHAT_STREAM,
    ROUTES_OF_ALL_DIALECTS,
    STREAM_ROUTES,
    TEXT_ROUTES,
    TextRoute,
    check_error,
    check_error_body,
    events,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

INVALID, SERVER = "invalid_request_error", "server_error"
BEFORE = {
    "refused": (400, INVALID, "invalid_value", "top_k must be at most 49152"),
    "unable": (400, INVALID, "unsupported_parameter", "no option min_p"),
    "full": (429, "rate_limit_error", "overloaded", "1024 requests wait"),
    "broken": (502, SERVER, "model_failed", "engine stopped"),
    "crashed": (502, SERVER, "model_failed", ""),
    "vanished": (404, INVALID, "model_not_found", "vanished"),
    "closed": (502, SERVER, "model_failed", ""),
}
AFTER = {
    "broken-later": (502, SERVER, "model_failed", 1007, "ab"),
    "closed-later": (502, SERVER, "model_failed", 1007, "ab"),
    "full-later": (429, "rate_limit_error", "overloaded", 1017, "a"),
}


@pytest.mark.parametrize("route", ROUTES_OF_ALL_DIALECTS, ids=str)
@pytest.mark.parametrize("model", BEFORE)
async def test_a_failure_before_the_first_token_has_a_status(
    gateway: RunningGateway, route: TextRoute, model: str
) -> None:
    status, kind, code, message = BEFORE[model]
    response = await gateway.http.post(route.path, json=route.body(model))
    param: Any = response.json()["error"]["param"]
    sentence = check_error(response, status, kind, code, param)
    assert message in sentence
    assert not sentence.startswith("[")
    # Names of tensors are nothing that a client of this API knows.
    assert param in (None, "model")
    assert (int(response.headers.get("retry-after", 0)) >= 1) == (status == 429)


@pytest.mark.parametrize("route", TEXT_ROUTES, ids=str)
async def test_a_prompt_longer_than_the_context_is_refused(gateway: RunningGateway, route: TextRoute) -> None:
    response = await gateway.http.post(route.path, json=route.body("too-long"))
    param = "messages" if "chat" in route.path else "prompt"
    sentence = check_error(response, 400, code="context_length_exceeded", param=param)
    assert "9000" in sentence and "8192" in sentence and "[" not in sentence


@pytest.mark.parametrize("route", ROUTES_OF_ALL_DIALECTS, ids=str)
@pytest.mark.parametrize("model", AFTER)
async def test_a_failure_after_the_first_token_is_an_error_event(
    gateway: RunningGateway, route: TextRoute, model: str
) -> None:
    status, kind, code, number, text = AFTER[model]
    response = await gateway.http.post(route.path, json=route.body(model))
    if not route.stream:
        check_error(response, status, kind, code)
        return
    assert response.status_code == 200
    *chunks, last = events(response)
    choices = [chunk["choices"][0] for chunk in chunks]
    texts = [choice["delta"].get("content") if "chat" in route.path else choice["text"] for choice in choices]
    assert "".join(part or "" for part in texts) == text
    assert not any(choice["finish_reason"] for choice in choices)
    check_error_body(last, kind, code)
    assert last["code"] == number


@pytest.mark.parametrize("route", STREAM_ROUTES, ids=str)
@pytest.mark.parametrize("model", AFTER)
async def test_the_official_client_raises_late_failures(gateway: RunningGateway, route: TextRoute, model: str) -> None:
    async with gateway.client() as client:
        resource: Any = client.chat.completions if route is CHAT_STREAM else client.completions
        stream = await resource.create(**route.body(model))
        with pytest.raises(openai.APIError) as failure:
            async for _ in stream:
                pass
        assert failure.value.code == AFTER[model][2]


@pytest.mark.parametrize("route", TEXT_ROUTES, ids=str)
async def test_a_silent_model_times_out(narrow: RunningGateway, triton: FakeTriton, route: TextRoute) -> None:
    before, started = len(triton.calls), time.monotonic()
    response = await narrow.http.post(route.path, json=route.body("silent"))
    assert TIMEOUT_SECONDS <= time.monotonic() - started < TIMEOUT_SECONDS + 30
    check_error(response, 504, "server_error", "model_timeout")
    await triton.cancelled_call("silent", before)


@pytest.mark.parametrize("route", TEXT_ROUTES, ids=str)
async def test_a_model_that_falls_silent_times_out(
    narrow: RunningGateway, triton: FakeTriton, route: TextRoute
) -> None:
    before = len(triton.calls)
    response = await narrow.http.post(route.path, json=route.body("silent-later"))
    if route.stream:
        assert response.status_code == 200
        check_error_body(events(response)[-1], "server_error", "model_timeout")
    else:
        check_error(response, 504, "server_error", "model_timeout")
    await triton.cancelled_call("silent-later", before)


@pytest.mark.parametrize("route", TEXT_ROUTES, ids=str)
async def test_a_slow_model_that_keeps_sending_does_not_time_out(narrow: RunningGateway, route: TextRoute) -> None:
    """The answer takes longer than `request_timeout`, but no pause in it does."""
    response = await narrow.http.post(route.path, json=route.body("steady"))
    assert response.status_code == 200
    assert route.text(response) == "tick tick tick tick tock"


async def test_a_connection_is_reused_after_a_failure(gateway: RunningGateway) -> None:
    for model in (*BEFORE, *AFTER, "hello"):
        response = await gateway.http.post(CHAT_STREAM.path, json=CHAT_STREAM.body(model))
    assert CHAT_STREAM.text(response).endswith("today?")
