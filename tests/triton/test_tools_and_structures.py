"""Tools beside a structure on the real engine: each answer is a valid call, or has the structure."""

import json
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel, ConfigDict, Field

from tests.triton.asking import NAME, Ask
from tests.triton.test_tools import QUESTIONS, TOOLS, check

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]


class Reply(BaseModel):
    """What the answer is where nothing is called."""

    model_config = ConfigDict(extra="forbid")
    said: str = Field(max_length=20)
    sure: bool


FORMAT: Any = {
    "type": "json_schema",
    "json_schema": {"name": "reply", "schema": Reply.model_json_schema(), "strict": True},
}


async def test_an_answer_is_a_valid_call_or_has_the_structure(ask: Ask) -> None:
    """A small model asks for either: what it begins with decides."""
    seen = []
    async with ask.gateway.client() as client:
        for seed, question in enumerate(QUESTIONS * 2):
            asked: Any = {
                "model": NAME,
                "messages": [{"role": "user", "content": question}],
                "tools": TOOLS,
                "response_format": FORMAT,
                "temperature": 1.0,
                "seed": seed,
                "parallel_tool_calls": bool(seed % 2),
                "max_tokens": 400,
            }
            (whole,) = (await client.chat.completions.create(**asked)).choices
            calls = whole.message.tool_calls or []
            for call in calls:
                assert call.type == "function"
                check(call.function.name, call.function.arguments)
            if calls:
                assert (whole.finish_reason, whole.message.content) == ("tool_calls", None)
                assert len(calls) == 1 or asked["parallel_tool_calls"]
            else:
                assert whole.finish_reason == "stop"
                Reply.model_validate_json(whole.message.content or "")
            seen.append(bool(calls))
            if seed < 2:
                async with client.chat.completions.stream(**asked) as stream:
                    (streamed,) = (await stream.get_final_completion()).choices
                assert (streamed.message.content or "") == (whole.message.content or "")
                assert [(c.function.name, c.function.arguments) for c in streamed.message.tool_calls or []] == [
                    (c.function.name, c.function.arguments) for c in calls
                ]
                assert streamed.finish_reason == whole.finish_reason
    assert True in seen and False in seen, seen


@pytest.mark.parametrize("choice", ["required", "none"])
async def test_without_a_choice_it_is_one_of_them(ask: Ask, choice: Any) -> None:
    async with ask.gateway.client() as client:
        asked: Any = {"model": NAME, "messages": [{"role": "user", "content": QUESTIONS[0]}], "temperature": 0}
        answer = await client.chat.completions.create(
            **asked, tools=TOOLS, tool_choice=choice, response_format=FORMAT, parallel_tool_calls=False
        )
    (only,) = answer.choices
    if choice == "none":
        Reply.model_validate_json(only.message.content or "")
    else:
        assert only.message.tool_calls is not None
        (call,) = only.message.tool_calls
        assert call.type == "function"
        check(call.function.name, call.function.arguments)


async def test_a_call_that_was_cut_ends_for_its_length_and_can_be_sent_back(ask: Ask) -> None:
    async with ask.gateway.client() as client:
        messages: list[Any] = [{"role": "user", "content": QUESTIONS[0]}]
        asked: Any = {"model": NAME, "tools": TOOLS, "temperature": 0}
        answer = await client.chat.completions.create(**asked, messages=messages, tool_choice="required", max_tokens=16)
        (only,) = answer.choices
        assert only.finish_reason == "length" and only.message.tool_calls
        (call,) = only.message.tool_calls
        assert call.type == "function"
        with pytest.raises(ValueError):
            json.loads(call.function.arguments)
        messages += [only.message, {"role": "tool", "tool_call_id": call.id, "content": "The call was cut off."}]
        again = await client.chat.completions.create(**asked, messages=messages, max_tokens=8)
    assert again.usage and again.usage.prompt_tokens > 50


async def test_a_stop_may_end_a_structure(ask: Ask) -> None:
    structure: Any = {"type": "json_object", "schema": Reply.model_json_schema()}
    async with ask.gateway.client() as client:
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


async def test_the_older_functions_are_called(ask: Ask) -> None:
    functions: list[Any] = [tool["function"] for tool in TOOLS]
    async with ask.gateway.client() as client:
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
