"""Functions that a model may call: https://platform.openai.com/docs/guides/function-calling"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag
from pydantic_core import from_json

from gateway.dialects.route import UNION_TAG, Wire
from gateway.dialects.vocabulary import schema_size
from gateway.errors import InvalidRequest
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


class ToolDefinition(Wire):
    """Something a model may use; only functions are known."""

    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(Wire):
    """The function that must be called."""

    name: str


class NamedToolChoice(Wire):
    """A choice that names a function."""

    type: Literal["function"]
    function: FunctionName


WireToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag(UNION_TAG + "word")]
    | Annotated[NamedToolChoice, Tag(UNION_TAG + "named")],
    Discriminator(lambda value: UNION_TAG + ("word" if isinstance(value, str) else "named")),
]


class FunctionCall(Wire):
    """A function and its arguments, a JSON object in text."""

    name: str
    arguments: str = ""


class WireToolCall(Wire):
    """A call that the assistant made in an earlier turn."""

    id: str = ""
    type: Literal["function"] = "function"
    function: FunctionCall


def parse(definitions: list[ToolDefinition], choice: Any) -> tuple[tuple[Tool, ...], ToolChoice]:
    """Return the tools, and which may or must be called.

    Raises `InvalidRequest` for what does not fit together, and for schemas that are too large.
    """
    _check_sizes(definitions)
    tools = tuple(map(_tool, definitions))
    if tools:
        check_written([tool.source for tool in tools], LONGEST, param="tools")
    names = [tool.name for tool in tools]
    seen: set[str] = set()
    for i, name in enumerate(names):
        if name in seen:
            raise InvalidRequest(f"Two tools have the name '{name}'.", param=f"tools[{i}].function.name")
        seen.add(name)
        if tools[i].parameters.get("type", "object") != "object":
            path = f"tools[{i}].function.parameters"
            raise InvalidRequest(f"'{path}' must be a JSON schema of the type 'object'.", param=path)
    if isinstance(choice, NamedToolChoice):
        name = choice.function.name
        if name not in names:
            known = ", ".join(names) or "none"
            raise InvalidRequest(f"There is no tool '{name[:64]}'. Tools: {known}.", param="tool_choice.function.name")
        return tools, Named(name)
    if choice == "required" and not tools:
        raise InvalidRequest("'tool_choice' is 'required', and there are no 'tools'.", param="tool_choice")
    return tools, (choice or "auto") if tools else "none"


def _check_sizes(definitions: list[ToolDefinition]) -> None:
    """Raise `InvalidRequest` for the schema that is too large, or with which all of them are."""
    room = schema_size.MOST_CHARACTERS_OF_TOOLS
    for i, definition in enumerate(definitions):
        path = f"tools[{i}].function.parameters"
        room -= schema_size.check(definition.function.parameters, path)
        if room < 0:
            most = f"The schemas of all tools may have {schema_size.MOST_CHARACTERS_OF_TOOLS} characters together."
            raise InvalidRequest(most, param=path)


def _tool(definition: ToolDefinition) -> Tool:
    function = definition.function
    return Tool(
        name=function.name,
        description=function.description,
        parameters=function.parameters or {},
        source={"type": definition.type, "function": _given(function)},
    )


def _given(function: FunctionDefinition) -> dict[str, Any]:
    """The fields that the caller has given, as `model_dump` has them but for copies of the schema."""
    return {name: value for name, value in function if name in function.model_fields_set}


def check_arguments(calls: Iterable[FunctionCall]) -> None:
    """Raise `RequestTooLarge` where the arguments of calls hold more values than those of one request may."""
    check_texts((call.arguments for call in calls), ARGUMENTS, param="messages")


def parse_call(call: WireToolCall, path: str) -> ToolCall:
    """Return a call of an earlier turn. Raises `InvalidRequest` where its arguments are no JSON object."""
    arguments = call.function.arguments.strip() or "{}"
    try:
        is_object = isinstance(from_json(arguments, allow_inf_nan=False), dict)
    except ValueError:
        is_object = False
    if not is_object:
        where = f"{path}.function.arguments"
        raise InvalidRequest(f"'{where}' must be a JSON object, written as a string.", param=where)
    return ToolCall(call.id, call.function.name, arguments)
