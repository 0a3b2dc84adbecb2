"""The older names of tools: `functions` and `function_call`. An answer has at most one call of them.

https://platform.openai.com/docs/api-reference/chat/create#chat_create-functions
"""

from typing import Annotated, Literal

from pydantic import Discriminator, Tag

from gateway.dialects.openai.wire.tools import FunctionDefinition, FunctionName, named_choice, parse_functions
from gateway.http.wire_model import UNION_TAG
from gateway.operations.chat import Tool, ToolChoice

WireFunctionChoice = Annotated[
    Annotated[Literal["none", "auto"], Tag(UNION_TAG + "word")] | Annotated[FunctionName, Tag(UNION_TAG + "named")],
    Discriminator(lambda value: UNION_TAG + ("word" if isinstance(value, str) else "named")),
]


def parse(
    functions: list[FunctionDefinition], choice: str | FunctionName | None
) -> tuple[tuple[Tool, ...], ToolChoice]:
    """Return the functions as tools, and the choice among them. Raises `InvalidRequest`."""
    tools = parse_functions(functions, lambda i: f"functions[{i}]", "functions")
    if isinstance(choice, FunctionName):
        return tools, named_choice(choice.name, tools, "function_call.name")
    if not tools or choice == "none":
        return tools, "none"
    return tools, "auto"
