"""Tool calls of earlier turns: truncated ones, results in another order, and missing fields."""

import json
from typing import Any

import pytest

from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.test_tools import F
from tests.wire.openai.text_requests import CHAT, captured_call, check_error

pytestmark = pytest.mark.asyncio(loop_scope="session")


def conversation(calls: list[dict[str, Any]] | None, *results: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": None, "tool_calls": calls, **fields},
        *({"role": "tool", "content": "r", **result} for result in results),
    ]


def call(id: str | None, arguments: str = "{}", name: str = "f") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


ARGUMENTS = {
    '{"a": 1}': '{"a": 1}',
    "": "{}",
    "  ": "{}",
    "null": "{}",
    '{"a": ': '"{\\"a\\": "',
    "[1]": '"[1]"',
    '{"a": NaN}': '"{\\"a\\": NaN}"',
    '{"a": ' + "1" * 5000 + "}": '"{\\"a\\": ' + "1" * 5000 + '}"',
    '{"a":' * 900: json.dumps('{"a":' * 900),
    "\\ud800": '"\\\\ud800"',
}


@pytest.mark.parametrize(("arguments", "rendered"), ARGUMENTS.items(), ids=[text[:10] for text in ARGUMENTS])
async def test_any_arguments_reach_the_template(
    gateway: RunningGateway, triton: FakeTriton, arguments: str, rendered: str
) -> None:
    messages = conversation([call("c", arguments)], {"tool_call_id": "c"})
    prompt = (await captured_call(gateway, triton, messages=messages, tools=[F])).prompt
    assert f'{{"name": "f", "arguments": {rendered}}}\n</tool_call>' in prompt


async def test_a_call_that_was_cut_can_be_answered(gateway: RunningGateway, triton: FakeTriton) -> None:
    """The client's own types send the content of an answer back unchanged."""
    async with gateway.client() as client:
        body: Any = {"model": "eager-and-cut", "tools": [F], "messages": [{"role": "user", "content": "?"}]}
        (cut,) = (await client.chat.completions.create(**body)).choices
        assert cut.finish_reason == "length" and cut.message.tool_calls
        result = {"role": "tool", "tool_call_id": cut.message.tool_calls[0].id, "content": "Not JSON."}
        body |= {"model": "hello", "messages": [*body["messages"], cut.message, result]}
        assert (await client.chat.completions.create(**body)).choices[0].message.content
    assert "Not JSON." in triton.calls[-1].prompt


async def test_results_reach_the_model_in_the_order_of_the_calls(gateway: RunningGateway, triton: FakeTriton) -> None:
    results = [{"tool_call_id": id, "content": f"of {id}"} for id in "bca"]
    messages = conversation([call(id) for id in "abc"], *results)
    prompt = (await captured_call(gateway, triton, messages=messages, tools=[F])).prompt
    assert prompt.index("of a") < prompt.index("of b") < prompt.index("of c")


@pytest.mark.parametrize("second", ["x", "a", None])
async def test_a_result_without_a_call_is_refused_by_place(gateway: RunningGateway, second: str | None) -> None:
    messages = conversation([call("a"), call("b")], {"tool_call_id": "a"}, {"tool_call_id": second})
    response = await gateway.http.post(CHAT.path, json={"model": "hello", "messages": messages})
    check_error(response, 400, param="messages[3].tool_call_id")


TAKEN = {
    "no calls": conversation([]),
    "null calls": conversation(None, content="Hm."),
    "no ids": conversation([call(""), call("")], {}, {}),
    "null ids": conversation([call(None)], {"tool_call_id": None}),
    "another id": conversation([call("a")], {"tool_call_id": "b"}),
    "no call before": [{"role": "user", "content": "?"}, {"role": "tool", "tool_call_id": "a", "content": "r"}],
    "a name of no tool": conversation([call("a", name="gone")], {"tool_call_id": "a"}),
}


@pytest.mark.parametrize("messages", TAKEN.values(), ids=TAKEN)
async def test_histories_that_other_servers_accept_are_accepted(
    gateway: RunningGateway, triton: FakeTriton, messages: Any
) -> None:
    assert (await captured_call(gateway, triton, messages=messages, tools=[F])).prompt
