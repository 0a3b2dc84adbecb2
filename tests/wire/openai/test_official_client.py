"""The official `openai` client."""

import asyncio
import time
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI, pydantic_function_tool
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from tests.fakes.triton import FakeTriton
from tests.wire.conftest import KEYS
from tests.wire.dialects import WireDialect, for_each_dialect
from tests.wire.gateway_server import RunningGateway
from tests.wire.scripted_models import MULTILINGUAL_TEXTS

pytestmark = pytest.mark.asyncio(loop_scope="session")

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello!"}]
GREETING = "\n\nHello there, how may I assist you today?"


def client_of(gateway: RunningGateway, dialect: WireDialect) -> AsyncOpenAI:
    return gateway.client(base_url=gateway.url + dialect.prefix)


@for_each_dialect
async def test_chat(gateway: RunningGateway, dialect: WireDialect) -> None:
    async with client_of(gateway, dialect) as client:
        answer = await client.chat.completions.create(model="hello", messages=MESSAGES, temperature=0.5, seed=1)
    assert answer.choices[0].message.content == GREETING
    assert answer.usage
    assert (answer.choices[0].finish_reason, answer.usage.total_tokens) == ("stop", 18)
    assert answer.id.startswith(dialect.chat_id_prefix)


@for_each_dialect
async def test_chat_streamed(gateway: RunningGateway, dialect: WireDialect) -> None:
    async with client_of(gateway, dialect) as client:
        stream = await client.chat.completions.create(
            model="tongues", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "".join(MULTILINGUAL_TEXTS)
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == len(MULTILINGUAL_TEXTS) + 1
    assert chunks[-1].usage.total_tokens == chunks[-1].usage.prompt_tokens + len(MULTILINGUAL_TEXTS) + 1


async def test_the_stream_helper_puts_answers_together(gateway: RunningGateway) -> None:
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


async def test_completions(gateway: RunningGateway) -> None:
    async with gateway.client() as client:
        answer = await client.completions.create(model="base", prompt="Hello", max_tokens=20)
        assert (answer.choices[0].text, answer.object) == (GREETING, "text_completion")
        stream = await client.completions.create(model="base", prompt="Hello", stream=True)
        assert "".join([chunk.choices[0].text async for chunk in stream]) == GREETING


async def test_models(gateway: RunningGateway) -> None:
    async with gateway.client() as client:
        assert "org/served" in {model.id async for model in client.models.list()}
        assert (await client.models.retrieve("org/served")).owned_by == "org"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("nothing")


async def test_the_synchronous_client(gateway: RunningGateway) -> None:
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
@for_each_dialect
async def test_failures(
    gateway: RunningGateway,
    dialect: WireDialect,
    model: str,
    options: dict[str, Any],
    error: type[openai.APIStatusError],
    stream: bool,
) -> None:
    async with client_of(gateway, dialect) as client:
        with pytest.raises(error) as failure:
            await client.chat.completions.create(model=model, messages=MESSAGES, stream=stream, **options)
    assert failure.value.code and failure.value.type
    assert isinstance(failure.value.body, dict)
    assert failure.value.body["message"] in failure.value.message


async def test_keys(guarded: RunningGateway) -> None:
    async with guarded.client(api_key=KEYS[1]) as client:
        assert (await client.chat.completions.create(model="hello", messages=MESSAGES)).choices
    async with guarded.client(api_key="sk-wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_the_client_understands_retry_after(gateway: RunningGateway) -> None:
    """Retry-After is a number of seconds that the client understands."""
    response = await gateway.http.post("/v1/chat/completions", json={"model": "full", "messages": MESSAGES})
    headers: Any = response.headers
    async with gateway.client() as client:
        assert isinstance(client, AsyncOpenAI)
        assert client._parse_retry_after_header(headers) == int(response.headers["retry-after"])


class Number(BaseModel):
    """The structure that the models `named` and `caller` return: one number."""

    a: int


TOOL = pydantic_function_tool(Number, name="f", description="Take a number")


async def test_an_answer_is_parsed_into_a_class(gateway: RunningGateway, triton: FakeTriton) -> None:
    before = len(triton.calls)
    async with gateway.client() as client:
        answer = await client.chat.completions.parse(model="named", messages=MESSAGES, response_format=Number)
    assert answer.choices[0].message.parsed == Number(a=1)
    (call,) = triton.calls[before:]
    assert '"a"' in call.sampling["structured_outputs"]


async def test_a_call_is_parsed_into_a_class(gateway: RunningGateway) -> None:
    async with gateway.client() as client:
        answer = await client.chat.completions.parse(model="caller", messages=MESSAGES, tools=[TOOL])
        assert answer.choices[0].message.tool_calls
        (call,) = answer.choices[0].message.tool_calls
        assert call.function.parsed_arguments == Number(a=1)
        assert answer.choices[0].finish_reason == "tool_calls"
        # The client's parsed message can be sent back.
        conversation: list[Any] = [
            *MESSAGES,
            answer.choices[0].message,
            {"role": "tool", "tool_call_id": call.id, "content": "2"},
        ]
        assert (await client.chat.completions.create(model="hello", messages=conversation, tools=[TOOL])).choices


@for_each_dialect
async def test_a_streamed_call_is_parsed_as_it_comes(gateway: RunningGateway, dialect: WireDialect) -> None:
    types = []
    async with (
        client_of(gateway, dialect) as client,
        client.chat.completions.stream(model="caller", messages=MESSAGES, tools=[TOOL]) as stream,
    ):
        async for event in stream:
            types.append(event.type)
            if event.type == "tool_calls.function.arguments.done":
                assert (event.name, event.parsed_arguments) == ("f", Number(a=1))
        final = await stream.get_final_completion()
    assert types.count("tool_calls.function.arguments.done") == 1
    assert types.count("tool_calls.function.arguments.delta") >= 2
    assert final.choices[0].message.content == "Let me look."
    assert final.choices[0].message.tool_calls
    assert final.choices[0].message.tool_calls[0].function.parsed_arguments == Number(a=1)


@for_each_dialect
async def test_a_function_of_the_older_api_is_called(gateway: RunningGateway, dialect: WireDialect) -> None:
    async with client_of(gateway, dialect) as client:
        answer = await client.chat.completions.create(model="caller", messages=MESSAGES, functions=[TOOL["function"]])
    assert answer.choices[0].finish_reason == "function_call"
    assert answer.choices[0].message.function_call
    assert answer.choices[0].message.function_call.name == TOOL["function"]["name"]


async def test_a_streamed_answer_is_parsed_into_a_class(gateway: RunningGateway) -> None:
    async with (
        gateway.client() as client,
        client.chat.completions.stream(model="named", messages=MESSAGES, response_format=Number) as stream,
    ):
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    assert final.choices[0].message.parsed == Number(a=1)


@for_each_dialect
async def test_streamed_log_probabilities_are_put_together(gateway: RunningGateway, dialect: WireDialect) -> None:
    options: dict[str, Any] = {"model": "odds", "messages": MESSAGES, "logprobs": True, "top_logprobs": 2}
    async with client_of(gateway, dialect) as client:
        whole = await client.chat.completions.create(**options)
        async with client.chat.completions.stream(**options) as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_completion()
    assert final.choices[0].logprobs and whole.choices[0].logprobs
    assert final.choices[0].logprobs.content == whole.choices[0].logprobs.content
    assert len(whole.choices[0].logprobs.content or ()) == 3


async def test_the_raw_response(gateway: RunningGateway) -> None:
    async with gateway.client() as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="hello", messages=MESSAGES, extra_headers={"X-Request-Id": "mine"}
        )
        assert raw.headers["content-type"] == "application/json"
        assert raw.request_id == "mine"
        assert raw.parse().choices[0].message.content == GREETING
        async with client.chat.completions.with_streaming_response.create(
            model="hello", messages=MESSAGES, stream=True
        ) as streaming:
            lines = [line async for line in streaming.iter_lines()]
    assert [line for line in lines if line][-1] == "data: [DONE]"


async def test_the_client_waits_as_long_as_it_is_told(gateway: RunningGateway, triton: FakeTriton) -> None:
    before, started = len(triton.calls), time.monotonic()
    async with gateway.client(max_retries=1) as client:
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="full", messages=MESSAGES)
    assert len(triton.calls) - before == 2
    assert time.monotonic() - started >= 2


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
async def test_embeddings(gateway: RunningGateway, encoding: str | None) -> None:
    """By default, the client requests base64 and decodes it."""
    options: dict[str, Any] = {"encoding_format": encoding} if encoding else {}
    async with gateway.client() as client:
        answer = await client.embeddings.create(model="vectors", input=["three", "e"], **options)
    if encoding != "base64":
        assert [list(entry.embedding) for entry in answer.data] == [[5.0, 2.0], [1.0, 1.0]]
    assert answer.usage.prompt_tokens == 6


async def test_the_synchronous_client_streams_and_parses(gateway: RunningGateway) -> None:
    def ask() -> None:
        with OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
            text = ""
            for chunk in client.chat.completions.create(model="hello", messages=MESSAGES, stream=True):
                text += chunk.choices[0].delta.content or ""
            assert text == GREETING
            with client.chat.completions.stream(model="caller", messages=MESSAGES, tools=[TOOL]) as stream:
                stream.until_done()
                calls = stream.get_final_completion().choices[0].message.tool_calls
            assert calls
            (call,) = calls
            assert call.function.parsed_arguments == Number(a=1)
            parsed = client.chat.completions.parse(model="named", messages=MESSAGES, response_format=Number)
            assert parsed.choices[0].message.parsed == Number(a=1)
            assert client.embeddings.create(model="vectors", input="three").data[0].embedding == [5.0, 2.0]
            with pytest.raises(openai.BadRequestError):
                client.embeddings.create(model="hello", input="three")

    await asyncio.to_thread(ask)
