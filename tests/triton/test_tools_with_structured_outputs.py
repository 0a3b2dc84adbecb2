"""Tools with a structured output: each response is a valid call or has the structure."""

import json
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel, ConfigDict, Field

from tests.triton.test_tools import QUESTIONS, TOOLS, check
from tests.triton.text_client import NAME, TextClient

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]


class Reply(BaseModel):
    """The content of a response without a call."""

    model_config = ConfigDict(extra="forbid")
    said: str = Field(max_length=20)
    sure: bool


FORMAT: Any = {
    "type": "json_schema",
    "json_schema": {"name": "reply", "schema": Reply.model_json_schema(), "strict": True},
}


async def test_a_response_is_a_valid_call_or_has_the_structure(complete: TextClient) -> None:
    """The first token of the response decides between a call and the structure."""
    called = []
    async with complete.gateway.client() as client:
        for seed, question in enumerate(QUESTIONS * 2):
            request: Any = {
                "model": NAME,
                "messages": [{"role": "user", "content": question}],
                "tools": TOOLS,
                "response_format": FORMAT,
                "temperature": 1.0,
                "seed": seed,
                "parallel_tool_calls": bool(seed % 2),
                "max_tokens": 400,
            }
            (whole,) = (await client.chat.completions.create(**request)).choices
            calls = whole.message.tool_calls or []
            for call in calls:
                assert call.type == "function"
                check(call.function.name, call.function.arguments)
            if calls:
                assert (whole.finish_reason, whole.message.content) == ("tool_calls", None)
                assert len(calls) == 1 or request["parallel_tool_calls"]
            else:
                assert whole.finish_reason == "stop"
                Reply.model_validate_json(whole.message.content or "")
            called.append(bool(calls))
            if seed < 2:
                async with client.chat.completions.stream(**request) as stream:
                    (streamed,) = (await stream.get_final_completion()).choices
                assert (streamed.message.content or "") == (whole.message.content or "")
                assert [(c.function.name, c.function.arguments) for c in streamed.message.tool_calls or []] == [
                    (c.function.name, c.function.arguments) for c in calls
                ]
                assert streamed.finish_reason == whole.finish_reason
    assert True in called and False in called, called


@pytest.mark.parametrize("choice", ["required", "none"])
async def test_the_tool_choice_decides_between_a_call_and_the_structure(complete: TextClient, choice: Any) -> None:
    async with complete.gateway.client() as client:
        request: Any = {"model": NAME, "messages": [{"role": "user", "content": QUESTIONS[0]}], "temperature": 0}
        answer = await client.chat.completions.create(
            **request, tools=TOOLS, tool_choice=choice, response_format=FORMAT, parallel_tool_calls=False
        )
    (only,) = answer.choices
    if choice == "none":
        Reply.model_validate_json(only.message.content or "")
    else:
        assert only.message.tool_calls is not None
        (call,) = only.message.tool_calls
        assert call.type == "function"
        check(call.function.name, call.function.arguments)


async def test_a_truncated_call_has_the_finish_reason_length_and_can_be_sent_back(complete: TextClient) -> None:
    async with complete.gateway.client() as client:
        messages: list[Any] = [{"role": "user", "content": QUESTIONS[0]}]
        request: Any = {"model": NAME, "tools": TOOLS, "temperature": 0}
        answer = await client.chat.completions.create(
            **request, messages=messages, tool_choice="required", max_tokens=16
        )
        (only,) = answer.choices
        assert only.finish_reason == "length" and only.message.tool_calls
        (call,) = only.message.tool_calls
        assert call.type == "function"
        with pytest.raises(ValueError):
            json.loads(call.function.arguments)
        messages += [only.message, {"role": "tool", "tool_call_id": call.id, "content": "The call was cut off."}]
        again = await client.chat.completions.create(**request, messages=messages, max_tokens=8)
    assert again.usage and again.usage.prompt_tokens > 50


async def test_a_stop_string_may_end_a_structure(complete: TextClient) -> None:
    structure: Any = {"type": "json_object", "schema": Reply.model_json_schema()}
    async with complete.gateway.client() as client:
        answer = await client.chat.completions.create(
            model=NAME,
            messages=[{"role": "user", "content": "Say something."}],
            response_format=structure,
            stop=['"sure'],
            temperature=0,
        )
    (only,) = answer.choices
    assert only.finish_reason == "stop" and (only.message.content or "").startswith('{"said":"')
    assert "sure" not in (only.message.content or "")


async def test_the_older_functions_parameter_is_supported(complete: TextClient) -> None:
    functions: list[Any] = [tool["function"] for tool in TOOLS]
    async with complete.gateway.client() as client:
        answer = await client.chat.completions.create(
            model=NAME,
            messages=[{"role": "user", "content": QUESTIONS[0]}],
            functions=functions,
            function_call={"name": "get_weather"},
            temperature=0,
        )
    (only,) = answer.choices
    assert only.message.function_call and only.message.tool_calls is None
    jsonschema.validate(json.loads(only.message.function_call.arguments), functions[0]["parameters"])
