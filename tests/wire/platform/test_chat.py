"""Chats of the platform dialect: the document's examples, and the format of every answer."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gateway.dialects.platform import response_models
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.conformance import validate_exactly
from tests.wire.openai.test_message_parts import data_url, encoded_image
from tests.wire.openai.test_official_client import GREETING
from tests.wire.openai.text_requests import events
from tests.wire.platform.chat_requests import CHAT, CONTENT, DOCUMENT_HEADERS, MODEL, chat_body

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(triton: FakeTriton) -> AsyncIterator[RunningGateway]:
    """A gateway with the document's placeholder as an alias of a model."""
    async with run_gateway(triton.url, model_aliases={MODEL: "sighted"}) as gateway:
        yield gateway


async def post_chat(gateway: RunningGateway, body: dict[str, Any]) -> dict[str, Any]:
    response = await gateway.http.post(CHAT, content=json.dumps(body, ensure_ascii=False), headers=DOCUMENT_HEADERS)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    validate_exactly(response_models.ChatAnswer, response.content)
    return response.json()


async def test_the_format_of_an_answer(gateway: RunningGateway) -> None:
    answer = await post_chat(gateway, chat_body(CONTENT))
    assert answer.pop("id").startswith("foaicmpl-")
    assert type(answer.pop("created")) is int
    assert answer == {
        "object": "chat.completion",
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "A cat."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
    }


@pytest.mark.parametrize("form", ["base64", "data URL"])
async def test_an_image_reaches_the_model(gateway: RunningGateway, triton: FakeTriton, form: str) -> None:
    url = base64.b64encode(encoded_image()).decode() if form == "base64" else data_url(encoded_image(), "image/png")
    await post_chat(
        gateway, chat_body([{"type": "text", "text": CONTENT}, {"type": "image_url", "image_url": {"url": url}}])
    )
    (sent,) = triton.calls[-1].tensors["image"]
    assert base64.b64decode(sent) == encoded_image()
    assert triton.calls[-1].prompt == f"{CONTENT}<image>"


@pytest.mark.parametrize("form", ["base64", "data URL"])
async def test_the_text_of_a_file_reaches_the_model(gateway: RunningGateway, triton: FakeTriton, form: str) -> None:
    table = b"name,age\nAnn,7\n"
    data = base64.b64encode(table).decode() if form == "base64" else data_url(table, "text/csv")
    await post_chat(
        gateway, chat_body([{"type": "text", "text": CONTENT}, {"type": "file", "file": {"file_data": data}}])
    )
    assert "Ann" in triton.calls[-1].prompt and CONTENT in triton.calls[-1].prompt


async def test_all_messages_reach_the_model(gateway: RunningGateway, triton: FakeTriton) -> None:
    turns = [
        {"role": "system", "content": "你是一个专业的编程助手"},
        {"role": "user", "content": "什么是 JavaScript？"},  # noqa: RUF001
        {"role": "assistant", "content": "JavaScript 是一种高级编程语言..."},
        {"role": "user", "content": "它和 Java 有什么关系？"},  # noqa: RUF001
    ]
    answer = await post_chat(gateway, {"messages": turns, "model": "hello"})
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": GREETING}
    assert all(turn["content"] in triton.calls[-1].prompt for turn in turns)


async def test_the_format_of_a_stream(gateway: RunningGateway) -> None:
    body = chat_body(CONTENT, stream=True) | {"model": "hello"}
    response = await gateway.http.post(CHAT, content=json.dumps(body), headers=DOCUMENT_HEADERS)
    *chunks, done = events(response)
    assert done == "[DONE]"
    for chunk in chunks:
        validate_exactly(response_models.ChatChunk, json.dumps(chunk))
        assert chunk["id"] == chunks[0]["id"] and chunk["id"].startswith("foaicmpl-")
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0] == {"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}
    assert choices[1] == {"index": 0, "delta": {"content": "\n\nHello"}, "finish_reason": None}
    assert choices[-1] == {"index": 0, "delta": {}, "finish_reason": "stop"}
    assert "".join(choice["delta"].get("content", "") for choice in choices) == GREETING
