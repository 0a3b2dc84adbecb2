"""Offers tools to a model without template support, and builds the JSON schemas of required calls."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.operations.chat import Chat, RequiredTool, Tool, ToolCall
from gateway.operations.text import StructuredOutput
from gateway.prompting.schema_relocation import relocate_schema

MAX_CALLS = 16
"""Calls in one answer where calls are enforced: a small model could otherwise call until its context is full."""

_INSTRUCTIONS = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

"""
# The wording of Qwen's and Hermes' own templates: https://github.com/NousResearch/Hermes-Function-Calling
_FORMAT_AUTO = """For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""
_FORMAT_REQUIRED = (
    'Answer with nothing but a json array of calls: [{"name": <function-name>, "arguments": <args-json-object>}]'
)
_FORMAT_NAMED = "Call the function {name}: answer with nothing but the json object of its arguments."


def tool_instructions(chat: Chat) -> str:
    """Return the instructions that offer the tools to a model whose template does not support tools."""
    tools = "\n".join(json.dumps(tool.source, ensure_ascii=False) for tool in chat.tools)
    if isinstance(chat.tool_choice, RequiredTool):
        answer_format = _FORMAT_NAMED.format(name=chat.tool_choice.name)
    else:
        answer_format = _FORMAT_REQUIRED if chat.tool_choice == "required" else _FORMAT_AUTO
    return _INSTRUCTIONS.format(tools=tools) + answer_format


def render_calls(calls: Sequence[ToolCall]) -> str:
    """Return calls of an earlier turn in the format that `tool_instructions` describes."""
    return "\n".join(
        f'<tool_call>\n{{"name": {json.dumps(call.name, ensure_ascii=False)}, '
        f'"arguments": {_render_arguments(call)}}}\n</tool_call>'
        for call in calls
    )


def _render_arguments(call: ToolCall) -> str:
    """Return JSON: the object, or a string of arguments that are no object, as templates write them."""
    return (call.arguments or "{}") if call.has_valid_arguments else json.dumps(call.arguments, ensure_ascii=False)


def required_calls_structure(chat: Chat) -> StructuredOutput | None:
    """Return the structured output that enforces the calls that `chat` requires; None where it requires none.

    For a named function the answer is its arguments alone; otherwise it is an array of calls.
    """
    if isinstance(chat.tool_choice, RequiredTool):
        name = chat.tool_choice.name
        return StructuredOutput(
            "json", next(arguments_schema(tool) for tool in chat.tools if tool.name == name), "tools"
        )
    if chat.tool_choice != "required":
        return None
    return StructuredOutput("json", calls_schema(chat.tools, chat.parallel_tool_calls), "tools")


def calls_schema(tools: Sequence[Tool], parallel: bool) -> dict[str, Any]:
    """Return the schema of an array of calls: of one call, or of up to `MAX_CALLS` where `parallel`."""
    definitions, calls = {}, []
    for number, tool in enumerate(tools):
        # References in a schema start at its root, which moves here.
        definitions[f"tool{number}"] = relocate_schema(arguments_schema(tool), f"#/$defs/tool{number}", "tools")
        calls.append(_call_schema(tool.name, number, "arguments"))
    most = MAX_CALLS if parallel else 1
    return {"type": "array", "minItems": 1, "maxItems": most, "items": {"anyOf": calls}, "$defs": definitions}


def _call_schema(name: str, number: int, arguments: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, arguments: {"$ref": f"#/$defs/tool{number}"}},
        "required": ["name", arguments],
        "additionalProperties": False,
    }


def calls_or_answer_schema(chat: Chat, answer: object, single_call_key: str | None, param: str) -> dict[str, Any]:
    """Return the schema of an answer that is either calls or matches `answer`, from the caller's field `param`.

    With `single_call_key`, a single call may also be an object that is not in an array, the form that models write
    between tags; its arguments have this key.
    """
    schema = calls_schema(chat.tools, chat.parallel_tool_calls)
    definitions = {**schema.pop("$defs"), "answer": relocate_schema(answer, "#/$defs/answer", param)}
    numbered = enumerate(chat.tools) if single_call_key else ()
    calls = [_call_schema(tool.name, number, single_call_key or "") for number, tool in numbered]
    return {"anyOf": [*calls, schema, {"$ref": "#/$defs/answer"}], "$defs": definitions}


_KEYWORDS_WITHOUT_NAMES = {"type", "properties", "required", "title", "description", "$schema", "$defs", "definitions"}


def arguments_schema(tool: Tool) -> Mapping[str, Any]:
    """Return the schema of a function's arguments, which are always an object.

    A function without `parameters` takes no arguments, as OpenAI documents. Libraries also write that as empty
    `properties`. An object schema that has nothing but a type allows any arguments.
    """
    schema = {"type": "object", **tool.parameters}
    takes_none = not tool.parameters or schema.get("properties") == {}
    if takes_none and schema.keys() <= _KEYWORDS_WITHOUT_NAMES and not schema.get("required"):
        return {**schema, "properties": {}, "additionalProperties": False}
    return schema
