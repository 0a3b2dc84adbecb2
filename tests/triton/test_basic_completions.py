"""Requests through the gateway and Triton to the real model."""

import json
import time
from datetime import datetime
from typing import Any

import openai
import pytest

from tests.triton.text_client import NAME, TextClient, chat, prompt, streamed
from tests.wire.gateway_server import RunningGateway

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

FRANCE = "What is the capital of France?"


async def test_the_capital_of_france(complete: TextClient) -> None:
    body = chat(FRANCE, max_tokens=100)
    whole, stream = await complete(body), await complete(streamed(body))
    assert "Paris" in whole.text
    assert whole.finish_reason == "stop"
    assert stream == whole


async def test_the_official_client(gateway: RunningGateway) -> None:
    async with gateway.client() as client:
        body = chat(FRANCE, max_tokens=100)
        whole = await client.chat.completions.create(**body)
        stream: Any = await client.chat.completions.create(**streamed(body))
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "Paris" in text
    assert text == whole.choices[0].message.content
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"
    assert chunks[-1].usage == whole.usage


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_usage_is_what_the_tokenizer_counts(complete: TextClient, tokenizer, stream: bool) -> None:
    question = {"role": "user", "content": "Name three colours — and “say” why 🙂."}
    body = chat(question["content"], max_tokens=400)
    completion = await complete(streamed(body) if stream else body)
    rendered = tokenizer.apply_chat_template([question], add_generation_prompt=True, tokenize=False)
    assert completion.finish_reason == "stop"
    assert completion.usage["prompt_tokens"] == len(tokenizer.encode(rendered))
    # The token that ended the turn is generated and hidden.
    assert completion.usage["completion_tokens"] == len(tokenizer.encode(completion.text)) + 1
    assert completion.usage["total_tokens"] == completion.usage["prompt_tokens"] + completion.usage["completion_tokens"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_truncated_completion_has_the_finish_reason_length(
    complete: TextClient, tokenizer, stream: bool
) -> None:
    text = "Once upon a time, in a land far away,"
    body = prompt(text, max_tokens=20)
    completion = await complete(streamed(body) if stream else body)
    assert completion.finish_reason == "length"
    assert completion.usage == {
        "prompt_tokens": len(tokenizer.encode(text)),
        "completion_tokens": 20,
        "total_tokens": len(tokenizer.encode(text)) + 20,
    }
    assert len(tokenizer.encode(completion.text)) == 20


async def test_a_chat_equals_its_rendered_prompt(complete: TextClient, tokenizer) -> None:
    """The model reads the prompt that the chat template renders."""
    messages = [
        {"role": "system", "content": "You are a pirate."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Arr!"},
        {"role": "user", "content": "Who are you?"},
    ]
    by_chat = await complete({**chat(""), "messages": messages, "max_tokens": 24})
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    by_text = await complete(prompt(rendered, max_tokens=24))
    assert by_chat == by_text


async def test_models(gateway: RunningGateway, default_folder) -> None:
    async with gateway.client() as client:
        (model,) = [model async for model in client.models.list()]
        assert await client.models.retrieve(NAME) == model.model_copy(update={"code": 0, "message": "success"})
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("nothing")
    assert (model.id, model.object, model.owned_by) == (NAME, "model", "HuggingFaceTB")
    # The time of the build, in seconds.
    built = datetime.fromisoformat(json.loads((default_folder / "BUILD.json").read_text())["built"]).timestamp()
    assert 1_760_000_000 < model.created <= built <= time.time()
    assert built - model.created < 1800
