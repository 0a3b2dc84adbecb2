"""Tools, functions that a model may call: https://platform.openai.com/docs/guides/function-calling"""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, PlainValidator, Tag
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import from_json

from gateway.dialects.openai.wire import schema_limits
from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.http.json_limits import JSONLimits, check_json_size, check_json_texts
from gateway.http.wire_model import UNION_TAG, WireModel
from gateway.operations.chat import RequiredTool, Tool, ToolCall, ToolChoice

MAX_TOOLS_BYTES = 4_000_000
"""Bytes of JSON of all tools: 128 of 31 kB each."""
ARGUMENT_LIMITS = JSONLimits(150_000)
"""Limits of the arguments of all calls of a conversation, which are JSON in strings."""

_Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]


class FunctionDefinition(WireModel):
    """A function and the JSON schema of its arguments."""

    name: _Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class CustomTool:
    """A custom tool, or a choice or call of one: known and not supported. Its other fields are not read."""

    def unsupported_error(self, path: str) -> UnsupportedOption:
        """Return the error for a custom tool at `path`."""
        return UnsupportedOption(
            f"'{path}.type': custom tools are not supported; use the type 'function'.", param=f"{path}.type"
        )


_FUNCTION, _CUSTOM = UNION_TAG + "function", UNION_TAG + "custom"


def _kind(value: Any) -> str:
    return _CUSTOM if isinstance(value, dict) and value.get("type") == "custom" else _FUNCTION


# Parsing refuses a custom tool with an error that names its path.
_CustomToolTag: TypeAlias = Annotated[
    Annotated[CustomTool, PlainValidator(lambda _: CustomTool()), SkipJsonSchema()], Tag(_CUSTOM)
]


class FunctionTool(WireModel):
    """A tool; only functions are supported."""

    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(WireModel):
    """The name of a function."""

    name: str


class NamedToolChoice(WireModel):
    """A choice that names a function."""

    type: Literal["function"]
    function: FunctionName


class AllowedTools(WireModel):
    """A subset of the tools, which the model may call or must call one of."""

    mode: Literal["auto", "required"]
    tools: Annotated[
        list[Annotated[Annotated[NamedToolChoice, Tag(_FUNCTION)] | _CustomToolTag, Discriminator(_kind)]],
        Field(max_length=128),
    ]


class AllowedToolsChoice(WireModel):
    """A choice of a subset of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolDefinition: TypeAlias = Annotated[Annotated[FunctionTool, Tag(_FUNCTION)] | _CustomToolTag, Discriminator(_kind)]


def _kind_of_choice(value: Any) -> str:
    if isinstance(value, str):
        return UNION_TAG + "word"
    kind = value.get("type") if isinstance(value, dict) else None
    return UNION_TAG + (kind if kind in ("custom", "allowed_tools") else "named")


WireToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag(UNION_TAG + "word")]
    | Annotated[NamedToolChoice, Tag(UNION_TAG + "named")]
    | Annotated[AllowedToolsChoice, Tag(UNION_TAG + "allowed_tools")]
    | _CustomToolTag,
    Discriminator(_kind_of_choice),
]


class FunctionCall(WireModel):
    """A called function. `arguments` is a JSON object in a string."""

    name: str
    arguments: str = ""


class FunctionToolCall(WireModel):
    """A tool call of the assistant in an earlier turn."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


WireToolCall: TypeAlias = Annotated[Annotated[FunctionToolCall, Tag(_FUNCTION)] | _CustomToolTag, Discriminator(_kind)]


def parse(definitions: list[Any], choice: Any) -> tuple[tuple[Tool, ...], ToolChoice]:
    """Return the tools and the choice among them, from the fields `tools` and `tool_choice`.

    Raises `InvalidRequest` for fields that contradict each other and for schemas that are too large, and
    `UnsupportedOption` for custom tools.
    """
    if isinstance(choice, CustomTool):
        raise choice.unsupported_error("tool_choice")
    for i, definition in enumerate(definitions):
        if isinstance(definition, CustomTool):
            raise definition.unsupported_error(f"tools[{i}]")
    tools = parse_functions(
        [definition.function for definition in definitions], lambda i: f"tools[{i}].function", "tools"
    )
    if isinstance(choice, AllowedToolsChoice):
        return _parse_allowed_tools(tools, choice.allowed_tools)
    if isinstance(choice, NamedToolChoice):
        return tools, named_choice(choice.function.name, tools, "tool_choice.function.name")
    if choice == "required" and not tools:
        raise InvalidRequest("'tool_choice' 'required' needs at least one tool in 'tools'.", param="tool_choice")
    return tools, (choice or "auto") if tools else "none"


def _parse_allowed_tools(tools: tuple[Tool, ...], allowed: AllowedTools) -> tuple[tuple[Tool, ...], ToolChoice]:
    path, names = "tool_choice.allowed_tools", set()
    for i, tool in enumerate(allowed.tools):
        where = f"{path}.tools[{i}]"
        if isinstance(tool, CustomTool):
            raise tool.unsupported_error(where)
        names.add(named_choice(tool.function.name, tools, f"{where}.function.name").name)
    if not names and allowed.mode == "required":
        raise InvalidRequest(f"'{path}.mode' 'required' needs at least one tool.", param=f"{path}.tools")
    # The model does not see the other tools: with the mode 'auto' it might call them.
    remaining = tuple(tool for tool in tools if tool.name in names)
    return remaining, allowed.mode if remaining else "none"


def named_choice(name: str, tools: Iterable[Tool], path: str) -> RequiredTool:
    """Return the choice of the function `name`. Raises `InvalidRequest` where it is none of `tools`."""
    names = [tool.name for tool in tools]
    if name not in names:
        known = ", ".join(names) or "none"
        raise InvalidRequest(f"The tool '{name[:64]}' does not exist. Tools: {known}.", param=path)
    return RequiredTool(name)


def parse_functions(functions: list[FunctionDefinition], path: Callable[[int], str], field: str) -> tuple[Tool, ...]:
    """Return the functions of the field `field` as tools. Function i is at `path(i)`. Raises `InvalidRequest`."""
    _check_sizes(functions, path)
    tools = tuple(map(_tool, functions))
    if tools:
        check_json_size([tool.source for tool in tools], MAX_TOOLS_BYTES, param=field)
    seen: set[str] = set()
    for i, tool in enumerate(tools):
        if tool.name in seen:
            raise InvalidRequest(f"Two tools have the name '{tool.name}'.", param=f"{path(i)}.name")
        seen.add(tool.name)
        if tool.parameters.get("type", "object") != "object":
            where = f"{path(i)}.parameters"
            raise InvalidRequest(f"'{where}' must be a JSON schema of the type 'object'.", param=where)
    return tools


def _check_sizes(functions: list[FunctionDefinition], path: Callable[[int], str]) -> None:
    """Raise `InvalidRequest` for the first schema that is too large, alone or together with those before it."""
    remaining = schema_limits.MAX_TOOLS_CHARACTERS
    for i, function in enumerate(functions):
        where = f"{path(i)}.parameters"
        remaining -= schema_limits.check(function.parameters, where)
        if remaining < 0:
            message = f"The schemas of all tools exceed the limit of {schema_limits.MAX_TOOLS_CHARACTERS} characters."
            raise InvalidRequest(message, param=where)


def _tool(function: FunctionDefinition) -> Tool:
    return Tool(
        name=function.name,
        description=function.description,
        parameters=function.parameters or {},
        source={"type": "function", "function": _given_fields(function)},
    )


def _given_fields(function: FunctionDefinition) -> dict[str, Any]:
    """Return the fields that the caller has set. Unlike `model_dump`, this does not copy the schema."""
    return {name: value for name, value in function if name in function.model_fields_set}


def check_arguments(calls: Iterable[FunctionCall]) -> None:
    """Raise `RequestTooLarge` where the arguments of all calls exceed `ARGUMENT_LIMITS`."""
    check_json_texts((call.arguments for call in calls), ARGUMENT_LIMITS, param="messages")


def parse_call(call: FunctionCall, id: str = "") -> ToolCall:
    """Return a call of an earlier turn. Its arguments may be invalid JSON: a token limit may have cut them."""
    arguments = call.arguments.strip() or "{}"
    if arguments == "null":
        return ToolCall(id, call.name, "{}")
    try:
        valid = isinstance(from_json(arguments, allow_inf_nan=False), dict)
    except ValueError:
        valid = False
    return ToolCall(id, call.name, arguments if valid else call.arguments, has_valid_arguments=valid)
