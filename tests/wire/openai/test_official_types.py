"""Every response parses strictly as the `openai` package's types. The client itself does not validate them."""

from typing import Any

import pytest
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.shared import ErrorObject

from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.conformance import check_response
from tests.wire.openai.text_requests import CHAT, CHAT_STREAM, TEXT, TEXT_STREAM, TextRoute, events

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in "fg"]
NAMED = {"type": "function", "function": {"name": "f"}}
USAGE = {"stream_options": {"include_usage": True}}
CHATS: dict[str, dict[str, Any]] = {
    "plain": {"model": "hello"},
    "several": {"model": "trio", "n": 3},
    "cut": {"model": "cut"},
    "wordless": {"model": "wordless"},
    "calls": {"model": "caller", "tools": TOOLS},
    "forced calls": {"model": "forced", "tools": TOOLS, "tool_choice": "required"},
    "a named call": {"model": "named", "tools": TOOLS, "tool_choice": NAMED},
    "a call and its odds": {"model": "caller", "tools": TOOLS, "logprobs": True, "top_logprobs": 2},
    "odds": {"model": "odds", "logprobs": True, "top_logprobs": 2},
    "odds of the chosen": {"model": "odds", "logprobs": True},
    "thought": {"model": "thinker"},
    "a function": {"model": "caller", "functions": [{"name": "f"}]},
    "a named function": {"model": "named", "functions": [{"name": "f"}], "function_call": {"name": "f"}},
    "structure": {"model": "named", "response_format": {"type": "json_object"}},
}
TEXTS: dict[str, dict[str, Any]] = {
    "plain": {"model": "hello"},
    "several answers": {"model": "trio", "n": 3},
    "several prompts": {"model": "hello", "prompt": ["a", "b", "c"]},
    "token ids": {"model": "hello", "prompt": [[1, 2], [3]]},
    "echo": {"model": "hello", "echo": True},
    "odds": {"model": "odds", "logprobs": 2},
    "odds of several": {"model": "odds", "logprobs": 1, "prompt": ["a", "b"]},
}


async def post(gateway: RunningGateway, route: TextRoute, fields: dict[str, Any]) -> Any:
    response = await gateway.http.post(route.path, json={**route.body("hello"), **fields})
    assert response.status_code == 200, response.text
    check_response(route.path, 200, response.headers["content-type"], response.content)
    return response


@pytest.mark.parametrize("fields", CHATS.values(), ids=CHATS)
async def test_a_chat(gateway: RunningGateway, fields: dict[str, Any]) -> None:
    response = await post(gateway, CHAT, fields)
    answer = ChatCompletion.model_validate_json(response.content, strict=True)
    assert len(answer.choices) == fields.get("n", 1) and answer.usage
    for choice in answer.choices:
        assert (choice.message.tool_calls is not None) == ("tools" in fields)
        assert (choice.message.function_call is not None) == ("functions" in fields)
        assert (choice.logprobs is not None) == ("logprobs" in fields)


@pytest.mark.parametrize("options", [{}, USAGE], ids=["", "usage"])
@pytest.mark.parametrize("fields", CHATS.values(), ids=CHATS)
async def test_a_streamed_chat(gateway: RunningGateway, fields: dict[str, Any], options: dict[str, Any]) -> None:
    response = await post(gateway, CHAT_STREAM, {**fields, **options})
    data = [block.removeprefix(b"data: ") for block in response.content.split(b"\n\n")[:-2]]
    chunks = [ChatCompletionChunk.model_validate_json(event, strict=True) for event in data]
    assert len({(chunk.id, chunk.created, chunk.model, chunk.system_fingerprint) for chunk in chunks}) == 1
    assert (chunks[-1].usage is not None) == bool(options)
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert len(reasons) == fields.get("n", 1)
    first: dict[int, Any] = {}
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        first.setdefault(choice.index, choice)
    assert {choice.delta.role for choice in first.values()} == {"assistant"}


@pytest.mark.parametrize("fields", TEXTS.values(), ids=TEXTS)
async def test_a_completion(gateway: RunningGateway, fields: dict[str, Any]) -> None:
    response = await post(gateway, TEXT, fields)
    answer = Completion.model_validate_json(response.content, strict=True)
    prompts = len(fields["prompt"]) if isinstance(fields.get("prompt"), list) else 1
    assert [choice.index for choice in answer.choices] == list(range(prompts * fields.get("n", 1)))
    assert answer.usage
    for choice in answer.choices:
        assert (choice.logprobs is not None) == ("logprobs" in fields)


@pytest.mark.parametrize("options", [{}, USAGE], ids=["", "usage"])
@pytest.mark.parametrize("fields", TEXTS.values(), ids=TEXTS)
async def test_a_streamed_completion(gateway: RunningGateway, fields: dict[str, Any], options: dict[str, Any]) -> None:
    *data, done = events(await post(gateway, TEXT_STREAM, {**fields, **options}))
    assert done == "[DONE]"
    for event in data:
        for choice in event["choices"]:
            # The type has no null here; OpenAI's own chunks have, until the last.
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        Completion.model_validate(event, strict=True)
    assert (data[-1].get("usage") is not None) == bool(options)


@pytest.mark.parametrize("texts", ["three", ["a", "b"], [1, 2], [[1], [2]]], ids=str)
async def test_embeddings(gateway: RunningGateway, texts: Any) -> None:
    response = await gateway.http.post("/v1/embeddings", json={"model": "vectors", "input": texts})
    check_response("/v1/embeddings", 200, response.headers["content-type"], response.content)
    CreateEmbeddingResponse.model_validate_json(response.content, strict=True)


async def test_models(gateway: RunningGateway) -> None:
    response = await gateway.http.get("/v1/models")
    check_response("/v1/models", 200, response.headers["content-type"], response.content)
    for card in response.json()["data"]:
        Model.model_validate(card, strict=True)
    model = await gateway.http.get("/v1/models/org/served")
    check_response("/v1/models/{model_id}", 200, model.headers["content-type"], model.content)
    Model.model_validate_json(model.content, strict=True)


@pytest.mark.parametrize("model", ["too-long", "broken", "full", "nothing", "unable", "closed"])
async def test_failures(gateway: RunningGateway, model: str) -> None:
    response = await gateway.http.post(CHAT.path, json=CHAT.body(model))
    check_response(CHAT.path, response.status_code, response.headers["content-type"], response.content)
    ErrorObject.model_validate(response.json()["error"], strict=True)
