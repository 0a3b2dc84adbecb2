"""Tool calls of the default model: a required call is valid."""

import json
from typing import Any

import jsonschema
import pytest

from tests.triton.text_client import NAME, TextClient

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
ROUTE = {
    "type": "object",
    "properties": {"stops": {"type": "array", "items": {"$ref": "#/$defs/place"}, "minItems": 2, "maxItems": 3}},
    "required": ["stops"],
    "additionalProperties": False,
    "$defs": {"place": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}},
                        "required": ["name"], "additionalProperties": False}},
}  # fmt: skip
SCHEMAS = {"get_weather": WEATHER, "plan_route": ROUTE}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "description": f"Can {name}.", "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
QUESTIONS = ["What is the weather in Paris, in celsius?", "Plan a route from Oslo to Rome.", "Sing me a song."]


def check(name: str, arguments: str) -> None:
    jsonschema.validate(json.loads(arguments), SCHEMAS[name])


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("choice", ["required", "plan_route"])
async def test_required_calls_are_valid(complete: TextClient, question: str, temperature: float, choice: str) -> None:
    named: Any = {"type": "function", "function": {"name": choice}}
    async with complete.gateway.client() as client:
        answer = await client.chat.completions.create(
            model=NAME,
            messages=[{"role": "user", "content": question}],
            tools=TOOLS,
            tool_choice="required" if choice == "required" else named,
            parallel_tool_calls=False,
            temperature=temperature,
            seed=5,
        )
    (only,) = answer.choices
    assert only.finish_reason == ("tool_calls" if choice == "required" else "stop")
    assert only.message.tool_calls is not None
    (call,) = only.message.tool_calls
    assert call.type == "function" and call.function.name in ({choice} & SCHEMAS.keys() or SCHEMAS)
    check(call.function.name, call.function.arguments)


async def test_a_streamed_call_equals_the_whole_one(complete: TextClient) -> None:
    request: dict[str, Any] = {
        "model": NAME,
        "messages": [{"role": "user", "content": QUESTIONS[0]}],
        "tools": TOOLS,
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "temperature": 0,
    }
    async with complete.gateway.client() as client:
        whole = await client.chat.completions.create(**request)
        async with client.chat.completions.stream(**request) as stream:
            pieces = [event async for event in stream]
            streamed = await stream.get_final_completion()
    ours, theirs = ((answer.choices[0].message.tool_calls or [None])[0] for answer in (whole, streamed))
    assert ours is not None and theirs is not None and ours.type == theirs.type == "function"
    assert (ours.function.name, ours.function.arguments) == (theirs.function.name, theirs.function.arguments)
    assert sum(piece.type == "tool_calls.function.arguments.delta" for piece in pieces) > 3


async def test_a_chat_continues_after_a_tool_result(complete: TextClient) -> None:
    call = {"id": "call_1", "type": "function",
            "function": {"name": "get_weather", "arguments": '{"city": "Paris", "unit": "celsius"}'}}  # fmt: skip
    messages: Any = [
        {"role": "user", "content": QUESTIONS[0]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": '{"temperature": 31, "sky": "clear"}'},
    ]
    async with complete.gateway.client() as client:
        answer = await client.chat.completions.create(
            model=NAME, messages=messages, tools=TOOLS, tool_choice="none", temperature=0, max_tokens=60
        )
    content = answer.choices[0].message.content
    assert content and "31" in content, content
