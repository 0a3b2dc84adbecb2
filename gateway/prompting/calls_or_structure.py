"""Constrains an answer to be either tool calls or a structured output, as the model chooses.

For engines that support structural tags, calls have the format that the model was trained on. For other engines, one
JSON schema describes both.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.errors import UnsupportedOption
from gateway.operations.chat import Chat
from gateway.operations.text import StructuredOutput
from gateway.prompting import tools
from gateway.prompting.schema_relocation import relocate_schema

# Formats of calls: texts before the first call, before and after the arguments of each, between two, and at the end.
# They have no special tokens, since an engine cannot enforce these by their text; the parsers do not need them.
_HERMES_LAYOUT = ("", '<tool_call>\n{{"name": {name}, "arguments": ', "}\n</tool_call>", "\n", "")
_ARRAY_LAYOUT = ("[", '{{"name": {name}, "arguments": ', "}", ", ", "]")
_MAX_REFERENCE_DEPTH = 8


def combine_calls_and_structure(
    chat: Chat, structure: StructuredOutput, call_format: str, *, structural_tags: bool
) -> tuple[StructuredOutput, str]:
    """Return the structured output of an answer that calls tools of `chat` or matches `structure`.

    The second value has the characters with which a call can begin. `call_format` is the format of the model's calls, a
    key of `tool_calls.PARSERS`. `structural_tags`: the engine supports them.

    Raises `UnsupportedOption` if an answer could not be distinguished from a call.
    """
    # If calls and answers can begin with the same text, both must be in one schema, so that the engine allows either.
    begin_alike = call_format == "llama3_json" and structure.kind == "json"
    if structural_tags and structure.kind != "grammar" and not begin_alike:
        layout = _HERMES_LAYOUT if call_format in ("hermes", "qwen", "qwen25") else _ARRAY_LAYOUT
        if layout is _ARRAY_LAYOUT:
            _check_is_object(structure)
        tag = json.dumps(_structural_tag(chat, structure, layout))
        return StructuredOutput("structural_tag", tag, structure.param), "<" if layout is _HERMES_LAYOUT else "["
    if structure.kind != "json":
        raise UnsupportedOption(
            "This model supports only JSON structured outputs together with tools. Omit the tools or the structured "
            "output, or set 'tool_choice' to 'none'.",
            param=structure.param,
        )
    _check_is_object(structure)
    name = "parameters" if call_format == "llama3_json" else "arguments"
    single_call_key = name if _is_closed(structure.value, name) else None
    schema = tools.calls_or_answer_schema(chat, structure.value, single_call_key, structure.param)
    return StructuredOutput("json", schema, structure.param), "[{" if single_call_key else "["


def _structural_tag(chat: Chat, structure: StructuredOutput, layout: Sequence[str]) -> Mapping[str, Any]:
    opening, before, after, separator, closing = layout
    calls: dict[str, Any] = {
        "type": "tags_with_separator",
        "tags": [
            {
                "type": "tag",
                "begin": before.format(name=json.dumps(tool.name, ensure_ascii=False)),
                "content": {
                    "type": "json_schema",
                    "json_schema": _relocated(tools.arguments_schema(tool), f"tool{number}", "tools"),
                },
                "end": after,
            }
            for number, tool in enumerate(chat.tools)
        ],
        "separator": separator,
        "at_least_one": True,
        "stop_after_first": not chat.parallel_tool_calls,
    }
    if opening:
        ends = [{"type": "const_string", "value": text} for text in (opening, closing)]
        calls = {"type": "sequence", "elements": [ends[0], calls, ends[1]]}
    return {"type": "structural_tag", "format": {"type": "or", "elements": [calls, *_answer_elements(structure)]}}


def _answer_elements(structure: StructuredOutput) -> Sequence[Mapping[str, Any]]:
    value: Any = structure.value
    match structure.kind:
        case "json":
            return [{"type": "json_schema", "json_schema": _relocated(value, "answer", structure.param)}]
        case "regex":
            return [{"type": "regex", "pattern": value}]
        case _:
            return [{"type": "const_string", "value": choice} for choice in value]


def _relocated(schema: object, name: str, param: str) -> Mapping[str, Any]:
    """Return the schema under the same pointer as in a schema of all tools, so that errors name the same place."""
    place = f"#/$defs/{name}"
    return {"$ref": place, "$defs": {name: relocate_schema(schema, place, param)}}


def _check_is_object(structure: StructuredOutput) -> None:
    """Raise `UnsupportedOption` for a schema that allows an array, as calls are one. Other kinds are not JSON."""
    if structure.kind == "json" and _root(structure.value).get("type") != "object":
        raise UnsupportedOption(
            "Together with tools, this model supports only JSON schemas of the type 'object'. Set the type, omit the "
            "tools or the structured output, or set 'tool_choice' to 'none'.",
            param=structure.param,
        )


def _is_closed(schema: object, arguments: str) -> bool:
    """Return whether the schema excludes every object with the keys `name` and `arguments`, the form of a call."""
    root = _root(schema)
    properties = root.get("properties")
    return (
        root.get("type") == "object"
        and isinstance(properties, Mapping)
        and root.get("additionalProperties") is False
        and "patternProperties" not in root
        and not {"name", arguments} <= properties.keys()
    )


def _root(schema: object) -> Mapping[str, Any]:
    """Return a schema, or the subschema that its root refers to; empty where it cannot be found."""
    root: Any = schema
    for _ in range(_MAX_REFERENCE_DEPTH):
        reference = root.get("$ref") if isinstance(root, Mapping) else None
        if not isinstance(reference, str) or not reference.startswith("#"):
            break
        root = schema
        for name in reference.split("/")[1:]:
            root = root.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(root, Mapping) else None
    return root if isinstance(root, Mapping) else {}
