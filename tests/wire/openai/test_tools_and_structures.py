"""Tools together with a structured output: the model chooses between calls and the structure."""

import json
from typing import Any

import pytest

from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.test_tools import NAMED, F, G, streamed, whole
from tests.wire.openai.text_requests import CHAT, captured_call, chat, check_error

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
BOTH: dict[str, Any] = {"tools": [F, G], "response_format": FORMAT}
# The bodies that these send, but for the names and schemas in them.
CLIENTS: dict[str, dict[str, Any]] = {
    # ChatOpenAI(…).bind_tools([…], response_format=…, strict=True)
    "langchain-openai 1.7.4": {"stream": False, **BOTH},
    # Agent(…, output_type=NativeOutput(…)) with tools
    "pydantic-ai 2.68.0": {"stream": False, **BOTH, "tool_choice": "auto"},
    "one call of any, or any object": {
        "tools": [F],
        "parallel_tool_calls": False,
        "response_format": {"type": "json_object"},
    },
}


async def structure(gateway: RunningGateway, triton: FakeTriton, model: str = "hello", **fields: Any) -> dict[str, Any]:
    call = await captured_call(gateway, triton, model=model, **fields)
    structures: dict[str, Any] = json.loads(call.sampling["structured_outputs"])
    return structures


@pytest.mark.parametrize("fields", CLIENTS.values(), ids=CLIENTS)
async def test_an_answer_is_a_call_or_a_structure(
    gateway: RunningGateway, triton: FakeTriton, fields: dict[str, Any]
) -> None:
    (kind,) = structures = await structure(gateway, triton, **fields)
    assert kind == "structural_tag"
    calls, answer = json.loads(structures[kind])["format"]["elements"]
    assert [tag["begin"] for tag in calls["tags"]] == [
        f'<tool_call>\n{{"name": "{tool["function"]["name"]}", "arguments": ' for tool in fields["tools"]
    ]
    assert calls["tags"][0]["content"]["json_schema"]["$defs"]["tool0"] == F["function"]["parameters"]
    assert calls["stop_after_first"] == (fields.get("parallel_tool_calls") is False)
    expected = SCHEMA if fields["response_format"] is FORMAT else {"type": "object"}
    assert answer["type"] == "json_schema" and answer["json_schema"]["$defs"]["answer"] == expected


async def test_a_backend_without_structural_tags_gets_one_schema(gateway: RunningGateway, triton: FakeTriton) -> None:
    schema = (await structure(gateway, triton, "elder", **BOTH))["json"]
    *lone, array, answer = schema["anyOf"]
    assert [call["properties"]["name"] for call in lone] == [{"const": "f"}, {"const": "g"}]
    assert (array["type"], array["maxItems"]) == ("array", 16)
    assert answer == {"$ref": "#/$defs/answer"} and schema["$defs"]["answer"] == SCHEMA
    # If any object is allowed, a call without brackets could be one with invalid arguments.
    open_ = await structure(gateway, triton, "elder", **{**BOTH, "response_format": {"type": "json_object"}})
    assert [part.get("type") for part in open_["json"]["anyOf"]] == ["array", None]
    for unclear in ({"structured_outputs": {"json": True}}, {"structured_outputs": {"regex": "a"}}):
        (param,) = unclear
        response = await chat(gateway, "elder", tools=[F], **unclear)
        check_error(response, 400, code="unsupported_parameter", param=param)


async def test_choices_and_expressions_combine_with_tools_and_grammars_do_not(
    gateway: RunningGateway, triton: FakeTriton
) -> None:
    for expected, parts in (
        ({"choice": ["yes", "no"]}, [{"type": "const_string", "value": word} for word in ("yes", "no")]),
        ({"regex": "[0-9]"}, [{"type": "regex", "pattern": "[0-9]"}]),
    ):
        structures = await structure(gateway, triton, tools=[F], structured_outputs=expected)
        assert json.loads(structures["structural_tag"])["format"]["elements"][1:] == parts
    response = await chat(gateway, tools=[F], structured_outputs={"grammar": 'start: "a"'})
    assert "supports only JSON structured outputs" in check_error(
        response, 400, code="unsupported_parameter", param="structured_outputs"
    )


@pytest.mark.parametrize("choice", ["required", NAMED, "none"], ids=["required", "named", "none"])
async def test_a_forced_choice_has_one_structure(gateway: RunningGateway, triton: FakeTriton, choice: Any) -> None:
    alone = {"tools": [F, G]} if choice != "none" else {"response_format": FORMAT}
    expected = await structure(gateway, triton, **alone, **({"tool_choice": choice} if choice != "none" else {}))
    assert await structure(gateway, triton, **BOTH, tool_choice=choice) == expected


@pytest.mark.parametrize("route", [whole, streamed])
async def test_the_answer_is_parsed_as_call_or_structure(gateway: RunningGateway, route: Any) -> None:
    text, (call,), reason = await route(gateway, "eager", **BOTH)
    assert (text, call["name"], json.loads(call["arguments"]), reason) == ("", "f", {"a": 1}, "tool_calls")
    assert await route(gateway, "named", **BOTH) == ('{"a":1}', [], "stop")


@pytest.mark.parametrize("route", [whole, streamed])
@pytest.mark.parametrize("more", [{}, {"response_format": FORMAT}], ids=["free", "either"])
async def test_a_truncated_call_has_the_reason_length(
    gateway: RunningGateway, route: Any, more: dict[str, Any]
) -> None:
    _, (call,), reason = await route(gateway, "eager-and-cut", tools=[F], **more)
    assert (call["name"], call["arguments"], reason) == ("f", '{"a":1', "length")
    _, (call,), reason = await route(gateway, "eager-and-stopped", tools=[F], stop="x", **more)
    assert (call["name"], call["arguments"], reason) == ("f", '{"a"', "stop")
    _, (call,), reason = await route(gateway, "eager", tools=[F], stop="x", **more)
    assert reason == "tool_calls"


async def test_stop_strings_combine_with_structures(gateway: RunningGateway, triton: FakeTriton) -> None:
    for fields in (
        {"response_format": FORMAT},
        {"tools": [F], "tool_choice": "required"},
        BOTH,
        {"guided_regex": "a*"},
    ):
        sampling = (await captured_call(gateway, triton, stop="}", stop_token_ids=[5], **fields)).sampling
        assert (sampling["stop"], sampling["stop_token_ids"]) == (["}"], [5])
        assert sampling["structured_outputs"]


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
async def test_a_schema_may_be_in_the_response_format_itself(
    gateway: RunningGateway, triton: FakeTriton, kind: str
) -> None:
    structures = await structure(gateway, triton, response_format={"type": kind, "schema": SCHEMA})
    assert structures == {"json": SCHEMA}
    large = {"type": kind, "schema": {"type": "object", "description": "x" * 300_000}}
    check_error(await chat(gateway, response_format=large), 400, param="response_format.schema")


FUNCTIONS = [F["function"], G["function"]]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_deprecated_functions_get_the_deprecated_response(gateway: RunningGateway, stream: bool) -> None:
    for model, choice, reason in (("caller", "auto", "function_call"), ("named", {"name": "f"}, "stop")):
        client = gateway.client()
        fields: Any = {
            "model": model,
            "messages": [{"role": "user", "content": "?"}],
            "functions": FUNCTIONS,
            "function_call": choice,
        }
        async with client:
            if not stream:
                (only,) = (await client.chat.completions.create(**fields)).choices
                assert only.message.tool_calls is None and only.message.function_call
                call, why = only.message.function_call, only.finish_reason
                name, arguments = call.name, call.arguments
            else:
                chunks = [chunk async for chunk in await client.chat.completions.create(**fields, stream=True)]
                parts = [chunk.choices[0].delta.function_call for chunk in chunks]
                name = "".join(part.name or "" for part in parts if part)
                arguments = "".join(part.arguments or "" for part in parts if part)
                why = chunks[-1].choices[0].finish_reason
                assert all(chunk.choices[0].delta.tool_calls is None for chunk in chunks)
        assert (name, json.loads(arguments), why) == ("f", {"a": 1}, reason)


async def test_an_answer_with_functions_has_one_call_at_most(gateway: RunningGateway, triton: FakeTriton) -> None:
    structures = await structure(gateway, triton, functions=FUNCTIONS, response_format=FORMAT)
    assert json.loads(structures["structural_tag"])["format"]["elements"][0]["stop_after_first"] is True
    prompt = (await captured_call(gateway, triton, functions=FUNCTIONS)).prompt
    assert all(json.dumps(tool) in prompt for tool in (F, G))
    assert "# Tools" not in (await captured_call(gateway, triton, functions=FUNCTIONS, function_call="none")).prompt


async def test_a_conversation_with_functions_continues(gateway: RunningGateway, triton: FakeTriton) -> None:
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a": '}},
        {"role": "function", "name": "f", "content": None},
    ]
    response = await gateway.http.post(CHAT.path, json={"model": "hello", "messages": messages, "functions": FUNCTIONS})
    assert response.status_code == 200
    assert '{"name": "f", "arguments": "{\\"a\\": "}' in triton.calls[-1].prompt
