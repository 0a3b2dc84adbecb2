"""How functions are offered to a model, and what its calls have to look like where it must call one."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.operations.chat import Chat, Named, Tool, ToolCall
from gateway.operations.text import Structure

MOST_CALLS = 16
"""Calls in one answer where calls are enforced: a small model might otherwise go on calling until its room is used."""

_OFFER = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

"""
# The words of Qwen's and Hermes' own templates: https://github.com/NousResearch/Hermes-Function-Calling
_FREELY = """For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""
_REQUIRED = (
    'Answer with nothing but a json array of calls: [{"name": <function-name>, "arguments": <args-json-object>}]'
)
_NAMED = "Call the function {name}: answer with nothing but the json object of its arguments."


def offer(chat: Chat) -> str:
    """Return the words that offer the tools to a model whose template does not know of any."""
    tools = "\n".join(json.dumps(tool.source, ensure_ascii=False) for tool in chat.tools)
    if isinstance(chat.tool_choice, Named):
        how = _NAMED.format(name=chat.tool_choice.name)
    else:
        how = _REQUIRED if chat.tool_choice == "required" else _FREELY
    return _OFFER.format(tools=tools) + how


def written(calls: Sequence[ToolCall]) -> str:
    """Return calls of an earlier turn in the form that `offer` asks for."""
    return "\n".join(
        f'<tool_call>\n{{"name": {json.dumps(call.name, ensure_ascii=False)}, '
        f'"arguments": {call.arguments or "{}"}}}\n</tool_call>'
        for call in calls
    )


def enforced(chat: Chat) -> Structure | None:
    """Return the structure that makes the answer the calls that `chat` demands; None where it demands none.

    A named function is answered by its arguments alone; else the answer is an array of calls.
    """
    if isinstance(chat.tool_choice, Named):
        name = chat.tool_choice.name
        return Structure("json", next(_arguments(tool) for tool in chat.tools if tool.name == name), "tools")
    if chat.tool_choice != "required":
        return None
    definitions, calls = {}, []
    for number, tool in enumerate(chat.tools):
        # A schema's references begin at its own root, which is moved here.
        definitions[f"tool{number}"] = _moved(_arguments(tool), f"#/$defs/tool{number}")
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": tool.name}, "arguments": {"$ref": f"#/$defs/tool{number}"}},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    most = MOST_CALLS if chat.parallel_tool_calls else 1
    schema = {"type": "array", "minItems": 1, "maxItems": most, "items": {"anyOf": calls}, "$defs": definitions}
    return Structure("json", schema, "tools")


def _arguments(tool: Tool) -> Mapping[str, Any]:
    """The schema of a function's arguments, which are always an object."""
    return {"type": "object", **tool.parameters}


# What stands behind these is data, whatever it looks like.
_DATA = frozenset({"const", "enum", "default", "examples"})
# And behind these stand schemas by names of the caller's.
_NAMED_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})


def _moved(schema: Any, root: str) -> Any:
    """Let the references inside a schema begin at `root`."""
    if isinstance(schema, list):
        return [_moved(item, root) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    moved: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str) and value.startswith("#"):
            moved[key] = root + value[1:]
        elif key == "$id":
            continue  # references would begin there, and not where the schema was moved
        elif key in _NAMED_SCHEMAS and isinstance(value, Mapping):
            moved[key] = {name: _moved(part, root) for name, part in value.items()}
        else:
            moved[key] = value if key in _DATA else _moved(value, root)
    return moved
