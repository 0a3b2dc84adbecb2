"""Calls of earlier turns and their results: what templates make of them."""

from typing import Any

import pytest

from gateway.errors import InvalidRequest
from gateway.model_card.card import TextCard
from gateway.operations.chat import Chat, Message, ToolCall
from gateway.prompting import tool_call_history
from gateway.prompting.chat_prompt import build_completion

USER = Message(role="user", content="?")
# Templates of the known formats, as they write a call.
CALLS = {
    "hermes": "<tool_call>{{ c.function | tojson }}</tool_call>",
    "hermes, for texts too": "{% if c.function.arguments is string %}{{ c.function.arguments }}{% else %}"
    "{{ c.function.arguments | tojson }}{% endif %}",
    "llama3_json": '{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}<|python_tag|>',
    "llama3_json, built in": "{% for k, v in c.function.arguments | items %}{{ k }}={{ v | tojson }}{% endfor %}",
    "mistral": "{% if c.id is not defined or c.id | length != 9 %}{{ raise_exception('nine') }}{% endif %}"
    "[TOOL_CALLS][{{ c.function | tojson }}, {{ c.id }}]",
    "pythonic": "[{{ c.function.name }}({% for k, v in c.function.arguments.items() %}{{ k }}={{ v | tojson }}"
    "{% endfor %})]",
    "pythonic, by names": "{% for k in c.function.arguments %}{{ k }}={{ c.function.arguments[k] | tojson }}"
    "{% endfor %}",
    "strict": "{% if c.function.arguments is not mapping %}{{ raise_exception('no object') }}{% endif %}"
    "{{ c.function.arguments | tojson }}",
}
BROKEN = ['{"city": "Par', "[1]", '{"a": NaN}', "<|im_end|>", "{" * 2000, "x" * 100_000]


def template(call: str) -> str:
    return (
        "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|{{ m.role }}|>"
        "{% if m.role == 'tool' %}{{ m.tool_call_id }} {{ m.name }}: {% endif %}{{ m.content }}"
        "{% for c in m.tool_calls or [] %}" + call + "{% endfor %}{% endfor %}"
    )


def prompt(source: str, *messages: Message) -> str:
    text = build_completion(Chat(model="m", messages=(USER, *messages)), TextCard(chat_template=source))[0].prompt
    assert isinstance(text, str)
    return text


def assistant_with_calls(*calls: ToolCall) -> Message:
    return Message(role="assistant", content="", tool_calls=calls)


def result(id: str | None, content: str = "r", **fields: Any) -> Message:
    return Message(role="tool", content=content, tool_call_id=id, **fields)


@pytest.mark.parametrize("arguments", BROKEN, ids=[text[:12] for text in BROKEN])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_arguments_that_are_no_object_are_rendered_as_text(call: str, arguments: str) -> None:
    rendered = prompt(
        template(call), assistant_with_calls(ToolCall("c", "f", arguments, has_valid_arguments=False)), result("c")
    )
    escaped = arguments[3:12].replace('"', '\\"')
    assert escaped in rendered.replace("\u200b", "") or escaped.replace('\\"', '"') in rendered
    assert "<|im_end|>" not in rendered


def test_a_template_without_tools_gets_lines_of_json() -> None:
    source = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    rendered = prompt(source, assistant_with_calls(ToolCall("c", "f", '{"a', has_valid_arguments=False)), result("c"))
    assert '<tool_call>\n{"name": "f", "arguments": "{\\"a"}\n</tool_call><|user|><tool_response>' in rendered


def test_a_template_that_fails_for_another_reason_fails() -> None:
    broken = assistant_with_calls(ToolCall("c", "f", "{", has_valid_arguments=False))
    with pytest.raises(InvalidRequest, match="never"):
        prompt(template("{{ raise_exception('never') }}"), broken)


A, B, C = (ToolCall(id, f"f{id}", "{}") for id in "abc")


def ordered_results(*messages: Message) -> list[tuple[str | None, str | None, Any]]:
    ordered = tool_call_history.order_results((USER, *messages))
    return [(m.tool_call_id, m.name, m.content) for m in ordered if m.role == "tool"]


def test_results_are_ordered_like_their_calls() -> None:
    turns = (result("c", "3"), result("a", "1"), result("b", "2"))
    expected = [("a", "fa", "1"), ("b", "fb", "2"), ("c", "fc", "3")]
    assert ordered_results(assistant_with_calls(A, B, C), *turns) == expected
    # Each run by itself, and a run that is not complete.
    assert ordered_results(
        assistant_with_calls(A, B, C), *turns, assistant_with_calls(A, C), result("c", "y"), result("a", "x")
    ) == [
        *expected,
        ("a", "fa", "x"),
        ("c", "fc", "y"),
    ]
    assert ordered_results(assistant_with_calls(A, B, C), result("c", "3"), result("b", "2")) == expected[1:]


def test_missing_ids_are_filled_in() -> None:
    nameless = [ToolCall("", name, "{}") for name in ("f", "g")]
    assert ordered_results(assistant_with_calls(*nameless), result(None, "1"), result(None, "2", name="said")) == [
        ("call_2_0", "f", "1"),
        ("call_2_1", "said", "2"),
    ]
    assert ordered_results(assistant_with_calls(A), result(None)) == [("a", "fa", "r")]


def test_unambiguous_histories_stay_unchanged() -> None:
    assert ordered_results(result("b", "2"), result("a", "1")) == [("b", None, "2"), ("a", None, "1")]
    assert ordered_results(assistant_with_calls(A), result("other")) == [("other", "fa", "r")]
    assert ordered_results(assistant_with_calls(A), result("a", "1"), result("a", "2")) == [
        ("a", "fa", "1"),
        ("a", None, "2"),
    ]
    assert ordered_results(assistant_with_calls(A, A), result("a", "1"), result("a", "2")) == [
        ("a", "fa", "1"),
        ("a", "fa", "2"),
    ]
    assert ordered_results(assistant_with_calls(A, B), USER, result("b", "2"), result("a", "1")) == [
        ("b", None, "2"),
        ("a", None, "1"),
    ]


@pytest.mark.parametrize(
    "messages", [(result("b"), result("x")), (result("b"), result("b")), (result("b"), result(None))]
)
def test_ambiguous_results_are_refused(messages: tuple[Message, ...]) -> None:
    with pytest.raises(InvalidRequest) as raised:
        tool_call_history.order_results((USER, assistant_with_calls(A, B), *messages))
    assert raised.value.param == "messages[3].tool_call_id"


def test_ids_that_mistrals_templates_refuse_are_shortened_and_still_match() -> None:
    call, short_call = ToolCall("call_0123456789abcdef", "f", "{}"), ToolCall("aB3dEf7h9", "g", "{}")
    turn, *results = tool_call_history.order_results(
        (assistant_with_calls(call, short_call), result(short_call.id), result(call.id)), short_ids=True
    )
    assert [call.id for call in turn.tool_calls] == [message.tool_call_id for message in results]
    assert len(turn.tool_calls[0].id) == 9 and turn.tool_calls[1].id == short_call.id
    assert "aB3dEf7h9 g: r" in prompt(template(CALLS["mistral"]), assistant_with_calls(short_call), result(None))
