"""Calls or a structure: what is demanded of each format, and how the answer is read."""

import json
from typing import Any

import pytest

from gateway.errors import UnsupportedOption
from gateway.model_card.card import parse_text
from gateway.operations.chat import Chat, Message, Tool, ToolCallBegin
from gateway.operations.text import Delta, Finish, Sampling, StructuredOutput
from gateway.prompting.chat_prompt import build_completion

ARGUMENTS = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
CLOSED = {**ARGUMENTS, "additionalProperties": False}
NODE = {"$ref": "#/$defs/node", "$defs": {"node": {**CLOSED, "properties": {"a": {"$ref": "#/$defs/node"}}}}}
TAGS = (
    '<tool_call>\n{"name": "f", "arguments": {"a":1}}\n</tool_call>\n<tool_call>\n{"name": "f", "arguments": {"a":2}}'
)
ARRAY = '[{"name":"f","arguments":{"a":1}}, {"name":"f","arguments":{"a":2}}]'
OBJECT, LLAMA = '{"name":"f","arguments":{"a":1}}', '{"name":"f","parameters":{"a":1}}'


def chat_with(structure: Any, kind: Any = "json") -> Chat:
    return Chat(
        model="m",
        messages=(Message(role="user", content="?"),),
        tools=(Tool(name="f", parameters=ARGUMENTS, source={"function": {"name": "f"}}),),
        tool_choice="auto",
        sampling=Sampling(structured_outputs=StructuredOutput(kind, structure, "response_format")),
    )


def read(chat: Chat, written: str, answer: str, *, tags: bool) -> tuple[int, str, str | None]:
    """Return the number of calls, the text, and the finish reason."""
    described = {"chat_template": "{{ messages[0].content }}", "tool_call_parser": written}
    reader = build_completion(chat, parse_text(described), structural_tags=tags)[1]
    assert reader
    events = [event for letter in answer for event in reader.read(Delta(0, letter, 1))]
    events += reader.read(Finish(0, "stop"))
    text = "".join(event.text for event in events if isinstance(event, Delta))
    (reason,) = (event.finish_reason for event in events if isinstance(event, Finish))
    return sum(isinstance(event, ToolCallBegin) for event in events), text, reason


@pytest.mark.parametrize(
    ("written", "tags", "structure", "calls", "texts"),
    [
        ("hermes", True, CLOSED, [(TAGS, 2)], [ARRAY, OBJECT, '{"a":1}', "<tool"]),
        ("hermes", True, {"type": "object"}, [(TAGS, 2)], [OBJECT, '{"a":"<tool_call>\\n{}"}']),
        ("qwen", False, CLOSED, [(ARRAY, 2), (OBJECT, 1)], ['{"a":1}', '{"name":"g","arguments":{}}']),
        ("qwen", False, {"type": "object"}, [(ARRAY, 2)], [OBJECT, '{"a":1}']),
        ("mistral", True, {"type": "object"}, [(ARRAY, 2)], [OBJECT]),
        ("pythonic", True, NODE, [(ARRAY, 2)], [OBJECT]),
        ("llama3_json", True, CLOSED, [(LLAMA, 1), (ARRAY, 2)], ['{"a":1}', '{"name":"x"}']),
        ("llama3_json", True, {"type": "object"}, [(ARRAY, 2)], [LLAMA]),
    ],
)
def test_answers_that_begin_like_enforced_calls_are_calls(
    written: str, tags: bool, structure: Any, calls: list[tuple[str, int]], texts: list[str]
) -> None:
    for answer, count in calls:
        assert read(chat_with(structure), written, answer, tags=tags) == (count, "", "tool_calls"), answer
    for answer in texts:
        assert read(chat_with(structure), written, answer, tags=tags) == (0, answer, "stop"), answer


def structure(chat: Chat, written: str, *, tags: bool) -> Any:
    described = {"chat_template": "{{ messages[0].content }}", "tool_call_parser": written}
    output = build_completion(chat, parse_text(described), structural_tags=tags)[0].sampling.structured_outputs
    assert output is not None
    return output


@pytest.mark.parametrize("tags", [True, False])
def test_a_structured_answer_is_never_read_as_a_call(tags: bool) -> None:
    """A call without brackets is allowed only where no answer could be one."""
    cases: list[dict[str, Any]] = [{"name": {}, "parameters": {}}, {"name": {}}]
    for properties in cases:
        schema = structure(chat_with({**CLOSED, "properties": properties}), "llama3_json", tags=tags).value
        assert len(schema["anyOf"]) == (2 if "parameters" in properties else 3)
    assert len(structure(chat_with(ARGUMENTS), "llama3_json", tags=tags).value["anyOf"]) == 2


def test_schemas_that_allow_an_array_of_calls_are_refused() -> None:
    for unclear in (True, {"type": "array"}, {"anyOf": [CLOSED]}, {"$ref": "#/$defs/x"}, {"$ref": "#"}):
        for written, tags in (("mistral", True), ("llama3_json", True), ("hermes", False)):
            with pytest.raises(UnsupportedOption) as raised:
                structure(chat_with(unclear), written, tags=tags)
            assert raised.value.param == "response_format"
        tag = json.loads(structure(chat_with(unclear), "hermes", tags=True).value)
        assert tag["format"]["elements"][1]["json_schema"]["$ref"] == "#/$defs/answer"


def test_tags_and_schema_have_the_same_parts() -> None:
    """Errors of the engine name places in the schema, which are the same in both forms."""
    calls, answer = json.loads(structure(chat_with(NODE), "hermes", tags=True).value)["format"]["elements"]
    parts = [tag["content"]["json_schema"] for tag in calls["tags"]] + [answer["json_schema"]]
    assert [part["$ref"] for part in parts] == ["#/$defs/tool0", "#/$defs/answer"]
    placed = {name: schema for part in parts for name, schema in part["$defs"].items()}
    assert placed == structure(chat_with(NODE), "hermes", tags=False).value["$defs"]


@pytest.mark.parametrize(("kind", "value"), [("regex", "a"), ("choice", ["a"])])
def test_regular_expressions_and_choices_need_structural_tags(kind: str, value: Any) -> None:
    for written in ("hermes", "llama3_json", "mistral", "pythonic"):
        assert structure(chat_with(value, kind), written, tags=True).kind == "structural_tag"
        for chat, tags in ((chat_with(value, kind), False), (chat_with("start: /a/", "grammar"), True)):
            with pytest.raises(UnsupportedOption):
                structure(chat, written, tags=tags)
