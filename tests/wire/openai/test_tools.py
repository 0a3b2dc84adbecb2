"""Tools: what the model gets, the calls in its answer, and invalid requests."""

import json
from typing import Any

import pytest

from tests.fakes.triton import FakeTriton
from tests.wire.dialects import WireDialect, for_each_dialect
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.text_requests import CHAT, CHAT_STREAM, captured_call, chat, check_error, events

pytestmark = pytest.mark.asyncio(loop_scope="session")


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    described = parameters or {"type": "object", "properties": {"a": {"type": "integer"}}}
    return {"type": "function", "function": {"name": name, "description": f"Does {name}.", "parameters": described}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    chosen = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": chosen}}


F, G = tool("f"), tool("g")
NAMED = {"type": "function", "function": {"name": "f"}}


async def streamed(gateway: RunningGateway, model: str, **fields: Any) -> tuple[str, list[dict[str, Any]], str]:
    """Return the text, the assembled calls and the finish reason of a streamed answer."""
    response = await gateway.http.post(CHAT_STREAM.path, json=CHAT_STREAM.body(model, **fields))
    *chunks, done = events(response)
    assert done == "[DONE]"
    choices = [chunk["choices"][0] for chunk in chunks]
    calls: list[dict[str, Any]] = []
    for delta in (choice["delta"] for choice in choices):
        for part in delta.get("tool_calls", ()):
            if "id" in part:
                assert part["type"] == "function" and part["index"] == len(calls)
                calls.append({"id": part["id"], "name": part["function"]["name"], "arguments": ""})
            calls[part["index"]]["arguments"] += part["function"]["arguments"]
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert len(reasons) == 1 and choices[-1]["finish_reason"]
    return "".join(choice["delta"].get("content") or "" for choice in choices), calls, reasons[0]


async def whole(gateway: RunningGateway, model: str, **more: Any) -> tuple[str, list[dict[str, Any]], str]:
    (choice,) = (await chat(gateway, model, **more)).json()["choices"]
    message = choice["message"]
    calls = [{"id": call["id"], **call["function"]} for call in message.get("tool_calls", ())]
    assert all(call["type"] == "function" for call in message.get("tool_calls", ()))
    assert (message["content"] is None) == (bool(calls) and not message["content"])
    return message["content"] or "", calls, choice["finish_reason"]


@pytest.mark.parametrize("route", [whole, streamed])
async def test_an_optional_tool_call(gateway: RunningGateway, route: Any) -> None:
    text, (call,), reason = await route(gateway, "caller", tools=[F, G])
    assert text == "Let me look."
    assert (call["name"], json.loads(call["arguments"]), reason) == ("f", {"a": 1}, "tool_calls")
    assert call["id"].startswith("call_")


@pytest.mark.parametrize("route", [whole, streamed])
async def test_required_tool_calls(gateway: RunningGateway, route: Any) -> None:
    text, calls, reason = await route(gateway, "forced", tools=[F, G], tool_choice="required")
    assert (text, reason) == ("", "tool_calls")
    assert [(call["name"], json.loads(call["arguments"])) for call in calls] == [("f", {"a": 1}), ("g", {})]
    assert calls[0]["id"] != calls[1]["id"]


@pytest.mark.parametrize("route", [whole, streamed])
async def test_a_call_of_the_named_function(gateway: RunningGateway, route: Any) -> None:
    text, (call,), reason = await route(gateway, "named", tools=[F, G], tool_choice=NAMED)
    assert (text, call["name"], json.loads(call["arguments"]), reason) == ("", "f", {"a": 1}, "stop")


@pytest.mark.parametrize("route", [whole, streamed])
async def test_text_like_a_call_stays_text_without_tools(gateway: RunningGateway, route: Any) -> None:
    text, calls, reason = await route(gateway, "caller", tools=[F], tool_choice="none")
    assert (calls, reason) == ([], "stop")
    assert text.startswith("Let me look.\n<tool_call>")


async def test_required_calls_are_enforced_by_the_model(gateway: RunningGateway, triton: FakeTriton) -> None:
    for choice, kind in (("required", "array"), (NAMED, "object")):
        call = await captured_call(gateway, triton, tools=[F, G], tool_choice=choice)
        schema = json.loads(call.sampling["structured_outputs"])["json"]
        assert schema["type"] == kind
    assert "structured_outputs" not in (await captured_call(gateway, triton, tools=[F, G])).sampling


@pytest.mark.parametrize("choice", [None, "auto", "required", NAMED])
async def test_the_tools_reach_the_prompt(gateway: RunningGateway, triton: FakeTriton, choice: Any) -> None:
    prompt = (await captured_call(gateway, triton, tools=[F, G], tool_choice=choice)).prompt
    assert prompt.startswith("<|im_start|>system\n# Tools")
    assert all(json.dumps(offered) in prompt for offered in (F, G))


async def test_reasoning_has_a_field_of_its_own(gateway: RunningGateway) -> None:
    message = (await chat(gateway, "thinker")).json()["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm.", "Yes")
    response = await gateway.http.post(CHAT_STREAM.path, json=CHAT_STREAM.body("thinker"))
    deltas = [chunk["choices"][0]["delta"] for chunk in events(response)[:-1]]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Hm."
    assert "".join(delta.get("content", "") for delta in deltas) == "Yes"


WRONG = [
    ("tools[0].type", {"tools": [{"type": "browser"}]}),
    ("tools[0].function", {"tools": [{"type": "function"}]}),
    ("tools[0].function.name", {"tools": [tool("")]}),
    ("tools[0].function.name", {"tools": [tool("has space")]}),
    ("tools[0].function.name", {"tools": [tool("x" * 65)]}),
    ("tools[1].function.name", {"tools": [F, F]}),
    ("tools[0].function.parameters", {"tools": [tool("f", type="string")]}),
    ("tools", {"tools": [tool(f"f{i}") for i in range(129)]}),
    ("tools", {"tools": {"f": F}}),
    ("tool_choice", {"tool_choice": "required"}),
    ("tool_choice", {"tools": [F], "tool_choice": "sometimes"}),
    ("tool_choice.function.name", {"tools": [F], "tool_choice": {"type": "function", "function": {"name": "g"}}}),
    ("tool_choice.function", {"tools": [F], "tool_choice": {"type": "function"}}),
    ("tool_choice", {"tools": [F], "tool_choice": 3}),
    ("parallel_tool_calls", {"tools": [F], "parallel_tool_calls": "yes"}),
    ("tool_choice.allowed_tools", {"tools": [F], "tool_choice": {"type": "allowed_tools"}}),
    ("tool_choice.allowed_tools.mode", {"tools": [F], "tool_choice": allowed("none", "f")}),
    ("tool_choice.allowed_tools.tools[1].function.name", {"tools": [F], "tool_choice": allowed("auto", "f", "g")}),
    ("tool_choice.allowed_tools.tools", {"tools": [F], "tool_choice": allowed("required")}),
    ("functions[0].name", {"functions": [{"name": "has space"}]}),
    ("functions[1].name", {"functions": [{"name": "f"}, {"name": "f"}]}),
    ("functions[0].parameters", {"functions": [{"name": "f", "parameters": {"type": "array"}}]}),
    ("functions", {"functions": {"name": "f"}}),
    ("function_call.name", {"function_call": {"name": "f"}}),
    ("function_call.name", {"functions": [{"name": "f"}], "function_call": {"name": "g"}}),
    ("function_call", {"functions": [{"name": "f"}], "function_call": "required"}),
    ("tools", {"functions": [{"name": "f"}], "tools": [G]}),
    ("tool_choice", {"functions": [{"name": "f"}], "tool_choice": "required"}),
    ("tool_choice", {"functions": [{"name": "f"}], "tool_choice": "auto"}),
    ("chat_template_kwargs", {"chat_template_kwargs": "x"}),
    ("chat_template_kwargs.messages", {"chat_template_kwargs": {"messages": []}}),
    ("continue_final_message", {"continue_final_message": True}),
]


@pytest.mark.parametrize(("param", "fields"), WRONG, ids=[f"{param}-{i}" for i, (param, _) in enumerate(WRONG)])
@for_each_dialect
async def test_invalid_tools_are_named_by_place(
    gateway: RunningGateway, dialect: WireDialect, param: str, fields: dict[str, Any]
) -> None:
    response = await gateway.http.post(dialect.chat.path, json=dialect.chat.body("hello", **fields))
    check_error(response, 400, param=param)


CUSTOM = {"type": "custom", "custom": {"name": "c"}}
CUSTOMS = [
    ("tools[1].type", {"tools": [F, CUSTOM]}),
    ("tool_choice.type", {"tools": [F], "tool_choice": CUSTOM}),
    (
        "tool_choice.allowed_tools.tools[0].type",
        {"tools": [F], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [CUSTOM]}}},
    ),
    (
        "messages[0].tool_calls[0].type",
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", **CUSTOM}]}, {"role": "user", "content": "?"}]},
    ),
]


@pytest.mark.parametrize(("param", "fields"), CUSTOMS, ids=[param for param, _ in CUSTOMS])
async def test_custom_tools_are_refused_by_place(gateway: RunningGateway, param: str, fields: dict[str, Any]) -> None:
    check_error(await chat(gateway, **fields), 400, code="unsupported_parameter", param=param)


async def test_only_allowed_tools_may_be_called(gateway: RunningGateway, triton: FakeTriton) -> None:
    call = await captured_call(gateway, triton, tools=[F, G], tool_choice=allowed("auto", "g"))
    assert json.dumps(G) in call.prompt and json.dumps(F) not in call.prompt
    assert "structured_outputs" not in call.sampling
    call = await captured_call(gateway, triton, tools=[F, G], tool_choice=allowed("required", "g"))
    (item,) = json.loads(call.sampling["structured_outputs"])["json"]["items"]["anyOf"]
    assert item["properties"]["name"] == {"const": "g"}
    call = await captured_call(gateway, triton, tools=[F, G], tool_choice=allowed("auto"))
    assert "# Tools" not in call.prompt


def past(**function: str) -> list[dict[str, Any]]:
    return [{"id": "c", "type": "function", "function": function}]


CALLS = [
    ("messages[1].tool_calls[0].function", [{"id": "c", "type": "function"}]),
    (
        "messages[1].tool_calls[0].function.arguments",
        [{"type": "function", "function": {"name": "f", "arguments": {}}}],
    ),
    ("messages[1].tool_calls", {"id": "c"}),
]


@pytest.mark.parametrize(("param", "calls"), CALLS, ids=[f"{param}-{i}" for i, (param, _) in enumerate(CALLS)])
async def test_earlier_calls_are_validated(gateway: RunningGateway, param: str, calls: Any) -> None:
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": calls}]
    check_error(await gateway.http.post(CHAT.path, json={"model": "hello", "messages": messages}), 400, param=param)


async def test_an_answer_that_only_calls_has_no_content_streamed_or_whole(gateway: RunningGateway) -> None:
    asked: dict[str, Any] = {"tools": [F], "tool_choice": NAMED}
    assert (await chat(gateway, "named", **asked)).json()["choices"][0]["message"]["content"] is None
    async with gateway.client() as client:
        for model, more, content in (
            ("named", asked, None),
            ("hello", {}, "\n\nHello there, how may I assist you today?"),
            ("wordless", {}, ""),
        ):
            messages = [{"role": "user", "content": "?"}]
            async with client.chat.completions.stream(model=model, messages=messages, **more) as stream:  # type: ignore[arg-type]
                answer = await stream.get_final_completion()
            assert answer.choices[0].message.content == content, model
