"""The schema of a function's arguments."""

from typing import Any

import pytest

from gateway.operations.chat import Tool
from gateway.prompting.tools import arguments_schema

NONE = {"type": "object", "properties": {}, "additionalProperties": False}
FREE = {"type": "object"}
REFERRING = {"type": "object", "properties": {}, "$ref": "#/$defs/a", "$defs": {"a": {"required": ["x"]}}}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, NONE),
        ({"type": "object", "properties": {}}, NONE),
        ({"type": "object", "properties": {}, "required": []}, {**NONE, "required": []}),
        (FREE, FREE),
        ({**FREE, "properties": {}, "additionalProperties": True}, None),
        ({**FREE, "properties": {}, "required": ["x"]}, None),
        ({**FREE, "properties": {"x": {}}}, None),
        (REFERRING, None),
    ],
)
def test_a_function_that_names_no_arguments_has_none(parameters: dict[str, Any], expected: Any) -> None:
    tool = Tool(name="f", parameters=parameters, source={})
    assert arguments_schema(tool) == (parameters if expected is None else expected)
