"""Streams: the order of events, text that is hard to split, and several answers at once."""

import time
from collections import defaultdict
from typing import Any

import httpx
import pytest

from tests.fakes.triton import FakeTriton
from tests.wire.dialects import OPENAI, PLATFORM
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.text_requests import (
    CHAT,
    CHAT_STREAM,
    STREAM_ROUTES,
    TEXT,
    TEXT_ROUTES,
    TEXT_STREAM,
    TextRoute,
    events,
)
from tests.wire.scripted_models import MULTILINGUAL_TEXTS

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize(
    ("route", "id_prefix"),
    [
        (OPENAI.chat_stream, OPENAI.chat_id_prefix),
        (PLATFORM.chat_stream, PLATFORM.chat_id_prefix),
        (TEXT_STREAM, "cmpl-"),
    ],
    ids=str,
)
async def test_the_order_of_a_stream(gateway: RunningGateway, route: TextRoute, id_prefix: str) -> None:
    response = await gateway.http.post(route.path, json=route.body("hello"))
    *chunks, done = events(response)
    assert done == "[DONE]"
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert len({chunk["created"] for chunk in chunks}) == 1
    assert chunks[0]["id"].startswith(id_prefix)
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    if "chat" in route.path:
        roles = [chunk["choices"][0]["delta"].get("role") for chunk in chunks]
        assert roles == ["assistant"] + [None] * (len(roles) - 1)
    assert not any(chunk.get("usage") for chunk in chunks)


async def test_response_ids_are_unique(gateway: RunningGateway) -> None:
    ids = {(await gateway.http.post(route.path, json=route.body("hello"))).text[:60] for route in TEXT_ROUTES * 5}
    assert len(ids) == len(TEXT_ROUTES) * 5


@pytest.mark.parametrize("route", TEXT_ROUTES, ids=str)
async def test_text_arrives_byte_for_byte(gateway: RunningGateway, route: TextRoute) -> None:
    response = await gateway.http.post(route.path, json=route.body("tongues"))
    assert response.status_code == 200
    assert route.text(response).encode() == "".join(MULTILINGUAL_TEXTS).encode()


@pytest.mark.parametrize("route", STREAM_ROUTES, ids=str)
async def test_each_delta_is_a_chunk(gateway: RunningGateway, route: TextRoute) -> None:
    response = await gateway.http.post(route.path, json=route.body("spaced-tongues"))
    assert texts(route, response) == list(MULTILINGUAL_TEXTS)


@pytest.mark.parametrize("route", STREAM_ROUTES, ids=str)
async def test_fast_tokens_are_not_lost(gateway: RunningGateway, route: TextRoute) -> None:
    response = await gateway.http.post(route.path, json=route.body("hasty", stream_options={"include_usage": True}))
    parts = texts(route, response)
    assert parts[0] == "a"
    assert "".join(parts[1:]) == 50 * " b"
    assert events(response)[-2]["usage"]["completion_tokens"] == 52


@pytest.mark.parametrize("route", STREAM_ROUTES, ids=str)
async def test_text_before_a_failure_is_not_lost(gateway: RunningGateway, route: TextRoute) -> None:
    response = await gateway.http.post(route.path, json=route.body("hasty-then-broken"))
    assert "".join(texts(route, response)) == 50 * "a"
    assert "error" in events(response)[-1]


def texts(route: TextRoute, response: httpx.Response) -> list[str]:
    """Return the text of each chunk that has any."""
    choices = [chunk["choices"][0] for chunk in events(response) if isinstance(chunk, dict) and chunk.get("choices")]
    added = [choice["delta"].get("content") if route is CHAT_STREAM else choice["text"] for choice in choices]
    return [text for text in added if text]


@pytest.mark.parametrize("route", TEXT_ROUTES, ids=str)
@pytest.mark.parametrize(
    ("model", "text", "usage"),
    [
        ("halting", "ab", (9, 5)),
        ("wordless", "", (9, 1)),
        ("empty-final", "\n\nHello there, how may I assist you today?", (9, 9)),
    ],
)
async def test_empty_responses_of_a_model(
    gateway: RunningGateway, route: TextRoute, model: str, text: str, usage: tuple[int, int]
) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if route.stream else {}
    response = await gateway.http.post(route.path, json=route.body(model, **options))
    assert (response.status_code, route.text(response)) == (200, text)
    *chunks, last = events(response)[:-1] if route.stream else [response.json()]
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == usage
    assert last["usage"]["total_tokens"] == sum(usage)
    if route.stream:
        assert last["choices"] == []
        assert all("usage" in chunk and chunk["usage"] is None for chunk in chunks)
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("route", STREAM_ROUTES, ids=str)
async def test_several_answers_of_a_stream_are_separate(gateway: RunningGateway, route: TextRoute) -> None:
    response = await gateway.http.post(route.path, json=route.body("trio", n=3, stream_options={"include_usage": True}))
    *chunks, usage, done = events(response)
    texts: dict[int, str] = defaultdict(str)
    reasons: dict[int, list[str]] = defaultdict(list)
    roles: dict[int, list[str]] = defaultdict(list)
    for chunk in chunks:
        for choice in chunk["choices"]:
            index = choice["index"]
            assert not reasons[index], "nothing comes after the reason why an answer ended"
            if route is CHAT_STREAM:
                if not texts[index] and not roles[index]:
                    assert choice["delta"]["role"] == "assistant"
                    roles[index].append("assistant")
                texts[index] += choice["delta"].get("content") or ""
            else:
                texts[index] += choice["text"]
            if choice["finish_reason"]:
                reasons[index].append(choice["finish_reason"])
    assert texts == {0: "abc", 1: "1", 2: "xyz"}
    assert reasons == {0: ["length"], 1: ["stop"], 2: ["stop"]}
    assert (usage["usage"]["completion_tokens"], done) == (7, "[DONE]")


@pytest.mark.parametrize("route", [CHAT, TEXT], ids=str)
async def test_several_answers_in_order(gateway: RunningGateway, route: TextRoute) -> None:
    choices = (await gateway.http.post(route.path, json=route.body("trio", n=3))).json()["choices"]
    texts = [choice["message"]["content"] if route is CHAT else choice["text"] for choice in choices]
    assert [(choice["index"], choice["finish_reason"]) for choice in choices] == [
        (0, "length"),
        (1, "stop"),
        (2, "stop"),
    ]
    assert texts == ["abc", "1", "xyz"]


@pytest.mark.parametrize("route", STREAM_ROUTES, ids=str)
async def test_deltas_are_sent_as_they_arrive(gateway: RunningGateway, triton: FakeTriton, route: TextRoute) -> None:
    """The model generates a after 0.2 s, b after another 0.1 s, and c after another 0.1 s."""
    started = time.monotonic()
    at: dict[str, float] = {}
    async with gateway.http.stream("POST", route.path, json=route.body("late")) as response:
        async for line in response.aiter_lines():
            for letter in "abc":
                if f'":"{letter}"' in line.replace(" ", ""):
                    at[letter] = time.monotonic() - started
    assert at["a"] >= 0.2
    assert at["b"] - at["a"] > 0.05
    assert at["c"] - at["b"] > 0.05


@pytest.mark.parametrize("route", STREAM_ROUTES, ids=str)
async def test_streams_have_headers_against_buffering(gateway: RunningGateway, route: TextRoute) -> None:
    response = await gateway.http.post(route.path, json=route.body("hello"))
    assert "no-cache" in response.headers["cache-control"]
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-length" not in response.headers
