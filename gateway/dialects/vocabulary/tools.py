"""Functions that a model may call: https://platform.openai.com/docs/guides/function-calling"""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, PlainValidator, Tag
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import from_json

from gateway.dialects.route import UNION_TAG, Wire
from gateway.dialects.vocabulary import schema_size
from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.http.counting import Bounds, check_texts, check_written
from gateway.operations.chat import Named, Tool, ToolCall, ToolChoice

LONGEST = 4_000_000
"""Bytes of JSON of all tools: 128 of 31 kB each."""
ARGUMENTS = Bounds(150_000)
"""What the arguments of all calls of a conversation may hold, which are JSON within texts."""

_Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]


class FunctionDefinition(Wire):
    """A function and the JSON schema of its arguments."""

    name: _Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Custom:
    """A tool that is called with any text, or what has to do with one; what else it says is not read."""

    def refused(self, path: str) -> UnsupportedOption:
        """Return the error for the one at `path`."""
        return UnsupportedOption(
            f"'{path}.type': custom tools are not supported; the type 'function' is.", param=f"{path}.type"
        )


_FUNCTION, _CUSTOM = UNION_TAG + "function", UNION_TAG + "custom"


def _kind(value: Any) -> str:
    return _CUSTOM if isinstance(value, dict) and value.get("type") == "custom" else _FUNCTION


# Custom tools are known and not carried: those who find one refuse it by its place.
_OrCustom: TypeAlias = Annotated[Annotated[Custom, PlainValidator(lambda _: Custom()), SkipJsonSchema()], Tag(_CUSTOM)]


class FunctionTool(Wire):
    """Something a model may use; only functions are known."""

    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(Wire):
    """The name of a function."""

    name: str


class NamedToolChoice(Wire):
    """A choice that names a function."""

    type: Literal["function"]
    function: FunctionName


class AllowedTools(Wire):
    """Some of the tools, of which the model may or must call some."""

    mode: Literal["auto", "required"]
    tools: Annotated[
        list[Annotated[Annotated[NamedToolChoice, Tag(_FUNCTION)] | _OrCustom, Discriminator(_kind)]],
        Field(max_length=128),
    ]


class AllowedToolsChoice(Wire):
    """A choice that leaves some of the tools out."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolDefinition: TypeAlias = Annotated[Annotated[FunctionTool, Tag(_FUNCTION)] | _OrCustom, Discriminator(_kind)]


def _kind_of_choice(value: Any) -> str:
    if isinstance(value, str):
        return UNION_TAG + "word"
    kind = value.get("type") if isinstance(value, dict) else None
    return UNION_TAG + (kind if kind in ("custom", "allowed_tools") else "named")


WireToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag(UNION_TAG + "word")]
    | Annotated[NamedToolChoice, Tag(UNION_TAG + "named")]
    | Annotated[AllowedToolsChoice, Tag(UNION_TAG + "allowed_tools")]
    | _OrCustom,
    Discriminator(_kind_of_choice),
]


class FunctionCall(Wire):
    """A function and its arguments, a JSON object in text."""

    name: str
    arguments: str = ""


class FunctionToolCall(Wire):
    """A call that the assistant made in an earlier turn."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


WireToolCall: TypeAlias = Annotated[Annotated[FunctionToolCall, Tag(_FUNCTION)] | _OrCustom, Discriminator(_kind)]


def parse(definitions: list[Any], choice: Any) -> tuple[tuple[Tool, ...], ToolChoice]:
    """Return the tools, and which may or must be called, from the fields `tools` and `tool_choice`.

    Raises `InvalidRequest` for what does not fit together, and for schemas that are too large, and `UnsupportedOption`
    for custom tools.
    """
    if isinstance(choice, Custom):
        raise choice.refused("tool_choice")
    for i, definition in enumerate(definitions):
        if isinstance(definition, Custom):
            raise definition.refused(f"tools[{i}]")
    tools = read([definition.function for definition in definitions], lambda i: f"tools[{i}].function", "tools")
    if isinstance(choice, AllowedToolsChoice):
        return _allowed(tools, choice.allowed_tools)
    if isinstance(choice, NamedToolChoice):
        return tools, named(choice.function.name, tools, "tool_choice.function.name")
    if choice == "required" and not tools:
        raise InvalidRequest("'tool_choice' is 'required', and there are no 'tools'.", param="tool_choice")
    return tools, (choice or "auto") if tools else "none"


def _allowed(tools: tuple[Tool, ...], allowed: AllowedTools) -> tuple[tuple[Tool, ...], ToolChoice]:
    path, names = "tool_choice.allowed_tools", set()
    for i, tool in enumerate(allowed.tools):
        where = f"{path}.tools[{i}]"
        if isinstance(tool, Custom):
            raise tool.refused(where)
        names.add(named(tool.function.name, tools, f"{where}.function.name").name)
    if not names and allowed.mode == "required":
        raise InvalidRequest(f"'{path}.mode' is 'required', and there are no tools.", param=f"{path}.tools")
    # Those that may not be called are not shown either: a model that chooses freely might call them.
    left = tuple(tool for tool in tools if tool.name in names)
    return left, allowed.mode if left else "none"


def named(name: str, tools: Iterable[Tool], path: str) -> Named:
    """Return the choice of the function `name`. Raises `InvalidRequest` where it is none of `tools`."""
    names = [tool.name for tool in tools]
    if name not in names:
        known = ", ".join(names) or "none"
        raise InvalidRequest(f"There is no tool '{name[:64]}'. Tools: {known}.", param=path)
    return Named(name)


def read(functions: list[FunctionDefinition], path: Callable[[int], str], field: str) -> tuple[Tool, ...]:
    """Return functions of the field `field`, of which number i stands at `path(i)`. Raises `InvalidRequest`."""
    _check_sizes(functions, path)
    tools = tuple(map(_tool, functions))
    if tools:
        check_written([tool.source for tool in tools], LONGEST, param=field)
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
    """Raise `InvalidRequest` for the schema that is too large, or with which all of them are."""
    room = schema_size.MOST_CHARACTERS_OF_TOOLS
    for i, function in enumerate(functions):
        where = f"{path(i)}.parameters"
        room -= schema_size.check(function.parameters, where)
        if room < 0:
            most = f"The schemas of all tools may have {schema_size.MOST_CHARACTERS_OF_TOOLS} characters together."
            raise InvalidRequest(most, param=where)


def _tool(function: FunctionDefinition) -> Tool:
    return Tool(
        name=function.name,
        description=function.description,
        parameters=function.parameters or {},
        source={"type": "function", "function": _given(function)},
    )


def _given(function: FunctionDefinition) -> dict[str, Any]:
    """The fields that the caller has given, as `model_dump` has them but for copies of the schema."""
    return {name: value for name, value in function if name in function.model_fields_set}


def check_arguments(calls: Iterable[FunctionCall]) -> None:
    """Raise `RequestTooLarge` where the arguments of calls hold more values than those of one request may."""
    check_texts((call.arguments for call in calls), ARGUMENTS, param="messages")


def parse_call(call: FunctionCall, id: str = "") -> ToolCall:
    """Return a call of an earlier turn, whatever its arguments are: a limit of tokens may have cut them."""
    arguments = call.arguments.strip() or "{}"
    if arguments == "null":
        return ToolCall(id, call.name, "{}")
    try:
        valid = isinstance(from_json(arguments, allow_inf_nan=False), dict)
    except ValueError:
        valid = False
    return ToolCall(id, call.name, arguments if valid else call.arguments, valid=valid)
