"""The official `openai` client, against the gateway."""

import asyncio

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.wire.cast import TONGUES
from tests.wire.conftest import KEYS
from tests.wire.serving import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="session")

MESSAGES = [{"role": "user", "content": "Hello!"}]
GREETING = "\n\nHello there, how may I assist you today?"


async def test_chat(gateway: Gateway) -> None:
    async with gateway.client() as client:
        answer = await client.chat.completions.create(model="hello", messages=MESSAGES, temperature=0.5, seed=1)
    assert answer.choices[0].message.content == GREETING
    assert (answer.choices[0].finish_reason, answer.usage.total_tokens) == ("stop", 18)


async def test_chat_streamed(gateway: Gateway) -> None:
    async with gateway.client() as client:
        stream = await client.chat.completions.create(
            model="tongues", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "".join(TONGUES)
    assert chunks[-1].usage.completion_tokens == len(TONGUES) + 1


async def test_the_stream_helper_puts_answers_together(gateway: Gateway) -> None:
    async with (
        gateway.client() as client,
        client.chat.completions.stream(model="trio", messages=MESSAGES, n=3) as stream,
    ):
        async for _ in stream:
            pass
        final = stream.current_completion_snapshot
    assert [choice.message.content for choice in final.choices] == ["abc", "1", "xyz"]
    assert [choice.message.role for choice in final.choices] == ["assistant"] * 3
    assert [choice.finish_reason for choice in final.choices] == ["length", "stop", "stop"]


async def test_completions(gateway: Gateway) -> None:
    async with gateway.client() as client:
        answer = await client.completions.create(model="base", prompt="Hello", max_tokens=20)
        assert (answer.choices[0].text, answer.object) == (GREETING, "text_completion")
        stream = await client.completions.create(model="base", prompt="Hello", stream=True)
        assert "".join([chunk.choices[0].text async for chunk in stream]) == GREETING


async def test_models(gateway: Gateway) -> None:
    async with gateway.client() as client:
        assert "org/served" in {model.id async for model in client.models.list()}
        assert (await client.models.retrieve("org/served")).owned_by == "org"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("nothing")


async def test_the_synchronous_client(gateway: Gateway) -> None:
    def ask() -> str | None:
        with OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
            return client.chat.completions.create(model="hello", messages=MESSAGES).choices[0].message.content

    assert await asyncio.to_thread(ask) == GREETING


@pytest.mark.parametrize(
    ("model", "options", "error"),
    [
        ("hello", {"temperature": 3}, openai.BadRequestError),
        ("too-long", {}, openai.BadRequestError),
        ("nothing", {}, openai.NotFoundError),
        ("broken", {}, openai.InternalServerError),
        ("full", {}, openai.RateLimitError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_failures(gateway: Gateway, model: str, options: dict, error: type, stream: bool) -> None:
    async with gateway.client() as client:
        with pytest.raises(error) as failure:
            await client.chat.completions.create(model=model, messages=MESSAGES, stream=stream, **options)
    assert failure.value.code and failure.value.type
    assert failure.value.body["message"] in failure.value.message


async def test_keys(guarded: Gateway) -> None:
    async with guarded.client(api_key=KEYS[1]) as client:
        assert (await client.chat.completions.create(model="hello", messages=MESSAGES)).choices
    async with guarded.client(api_key="sk-wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_the_client_tries_again_when_told_to(gateway: Gateway) -> None:
    """Retry-After is a number of seconds that the client understands."""
    response = await gateway.http.post("/v1/chat/completions", json={"model": "full", "messages": MESSAGES})
    async with gateway.client() as client:
        assert isinstance(client, AsyncOpenAI)
        assert client._parse_retry_after_header(response.headers) == int(response.headers["retry-after"])
