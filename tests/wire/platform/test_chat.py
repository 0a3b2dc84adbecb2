"""Chats of the platform dialect: the document's examples, and the format of every answer."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from gateway.dialects.platform import response_models
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.conformance import validate_exactly
from tests.wire.openai.test_message_parts import data_url, encoded_image
from tests.wire.openai.test_official_client import GREETING, MESSAGES, TOOL, Something
from tests.wire.openai.text_requests import check_error, events
from tests.wire.platform.chat_requests import CHAT, CONTENT, DOCUMENT_HEADERS, MODEL, chat_body

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def printed(triton: FakeTriton) -> AsyncIterator[RunningGateway]:
    """A gateway with the document's placeholder as an alias of a model."""
    async with run_gateway(triton.url, model_aliases={MODEL: "sighted"}) as gateway:
        yield gateway


async def ask(gateway: RunningGateway, body: dict[str, Any]) -> dict[str, Any]:
    response = await gateway.http.post(CHAT, content=json.dumps(body, ensure_ascii=False), headers=DOCUMENT_HEADERS)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    validate_exactly(response_models.ChatAnswer, response.content)
    return response.json()


async def test_a_text(printed: RunningGateway) -> None:
    answer = await ask(printed, chat_body(CONTENT))
    assert answer.pop("id").startswith("foaicmpl-")
    assert type(answer.pop("created")) is int
    assert answer == {
        "object": "chat.completion",
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "A cat."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
    }


@pytest.mark.parametrize("form", ["base64", "data URL"])
async def test_a_picture(printed: RunningGateway, triton: FakeTriton, form: str) -> None:
    url = base64.b64encode(encoded_image()).decode() if form == "base64" else data_url(encoded_image(), "image/png")
    await ask(printed, chat_body([{"type": "text", "text": CONTENT}, {"type": "image_url", "image_url": {"url": url}}]))
    (sent,) = triton.calls[-1].tensors["image"]
    assert base64.b64decode(sent) == encoded_image()
    assert triton.calls[-1].prompt == f"{CONTENT}<image>"


@pytest.mark.parametrize("form", ["base64", "data URL"])
async def test_a_file(printed: RunningGateway, triton: FakeTriton, form: str) -> None:
    table = b"name,age\nAnn,7\n"
    data = base64.b64encode(table).decode() if form == "base64" else data_url(table, "text/csv")
    await ask(printed, chat_body([{"type": "text", "text": CONTENT}, {"type": "file", "file": {"file_data": data}}]))
    assert "Ann" in triton.calls[-1].prompt and CONTENT in triton.calls[-1].prompt


async def test_several_turns(printed: RunningGateway, triton: FakeTriton) -> None:
    turns = [
        {"role": "system", "content": "你是一个专业的编程助手"},
        {"role": "user", "content": "什么是 JavaScript？"},  # noqa: RUF001
        {"role": "assistant", "content": "JavaScript 是一种高级编程语言..."},
        {"role": "user", "content": "它和 Java 有什么关系？"},  # noqa: RUF001
    ]
    answer = await ask(printed, {"messages": turns, "model": "hello"})
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": GREETING}
    assert all(turn["content"] in triton.calls[-1].prompt for turn in turns)


async def test_a_stream(printed: RunningGateway) -> None:
    body = chat_body(CONTENT, stream=True) | {"model": "hello"}
    response = await printed.http.post(CHAT, content=json.dumps(body), headers=DOCUMENT_HEADERS)
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


async def test_a_stream_that_fails_half_way(printed: RunningGateway) -> None:
    response = await printed.http.post(CHAT, json=chat_body(CONTENT, stream=True) | {"model": "broken-later"})
    *_, last = events(response)
    assert last["error"]["type"] == "server_error" and last["code"] == 1007


async def test_a_model_that_only_reads_is_shown_no_picture(gateway: RunningGateway) -> None:
    part = {"type": "image_url", "image_url": {"url": base64.b64encode(encoded_image()).decode()}}
    response = await gateway.http.post(CHAT, json=chat_body([part]) | {"model": "hello"})
    check_error(response, 400, code="unsupported_parameter", param="messages[0].content[0]")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"functions": [{"name": "f"}], "tool_choice": "auto"}, "tool_choice"),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "%%%"}}]}]},
            "messages[0].content[0].file.file_data",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "?"}}]}]},
            "messages[0].content[0].image_url",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1"}}]}
                ]
            },
            "messages[0].content[0].image_url",
        ),
    ],
)
async def test_bad_tools_and_references(gateway: RunningGateway, change: dict[str, Any], param: str) -> None:
    response = await gateway.http.post(CHAT, json=chat_body(CONTENT) | {"model": "sighted"} | change)
    check_error(response, 400, code=response.json()["error"]["code"], param=param)


async def test_the_official_client(gateway: RunningGateway) -> None:
    async with gateway.client(base_url=f"{gateway.url}/tritonic/v1") as client:
        answer = await client.chat.completions.create(model="hello", messages=MESSAGES)
        assert answer.choices[0].message.content == GREETING
        assert answer.id.startswith("foaicmpl-")
        stream = await client.chat.completions.create(
            model="hello", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == GREETING
        assert chunks[-1].usage and chunks[-1].usage.total_tokens == 18
        async with client.chat.completions.stream(model="caller", messages=MESSAGES, tools=[TOOL]) as streamed:
            await streamed.until_done()
            calls = (await streamed.get_final_completion()).choices[0].message.tool_calls
        assert calls
        (call,) = calls
        assert call.function.parsed_arguments == Something(a=1)
        older = await client.chat.completions.create(model="caller", messages=MESSAGES, functions=[TOOL["function"]])
        assert older.choices[0].finish_reason == "function_call"
        assert older.choices[0].message.function_call
        assert older.choices[0].message.function_call.name == call.function.name
        odds = await client.chat.completions.create(model="odds", messages=MESSAGES, logprobs=True, top_logprobs=2)
        assert odds.choices[0].logprobs and len(odds.choices[0].logprobs.content or ()) == 3
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="nothing", messages=MESSAGES)
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="full", messages=MESSAGES)
