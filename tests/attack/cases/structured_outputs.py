"""Attacks by structured outputs that are short and expensive to compile. tests/unit/llm tests them in the engine."""

import json
from collections.abc import Callable
from typing import Any

from tests.attack.cases.case import REFUSAL_STATUSES, Attack, AttackCase, Target
from tests.attack.cases.json_bodies import chat_body

CHAT, COMPLETE = "/v1/chat/completions", "/v1/completions"


def post_structure(fields: Callable[[], dict[str, Any]], path: str = CHAT) -> Attack:
    """Request a structured output. `fields` returns the fields of the body that define the structure."""

    def attack(target: Target) -> None:
        data = json.dumps(fields()).encode()
        body = chat_body(data[1:-1]) if path == CHAT else b'{"model":"hello","prompt":"x",' + data[1:]
        target.json(path, body)

    return attack


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def _tools(schema: dict[str, Any]) -> dict[str, Any]:
    function = {"name": "f", "parameters": schema, "strict": True}
    return {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}


def _properties(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(count)}}


def _deep(count: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(count):
        schema = {"anyOf": [schema, {"type": "array", "items": {"$ref": "#"}}]}
    return schema


_STRUCTURES: dict[str, Callable[[], dict[str, Any]]] = {
    "a regex of counts in counts": lambda: {"structured_outputs": {"regex": "((a{1000}){1000}){100}"}},
    "a regex of alternatives": lambda: {"guided_regex": "(a|a|aa)*" * 5000},
    "a regex nested deep": lambda: {"guided_regex": "(" * 50_000 + "a" + ")" * 50_000},
    "eight thousand optional properties": lambda: _schema(_properties(8000)),
    "eight thousand properties of a tool": lambda: _tools(_properties(8000)),
    "a schema in a schema": lambda: _schema(_deep(60)),
    "a schema of a tool in a schema": lambda: _tools(_deep(60)),
    "multiples of a prime": lambda: _schema({"type": "integer", "multipleOf": 999983}),
    "references in a circle": lambda: _schema({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}),
    "many choices": lambda: {"structured_outputs": {"choice": [f"choice {n}" for n in range(100_000)]}},
    "one long choice": lambda: {"guided_choice": ["a" * 2**20]},
    "a grammar of megabytes": lambda: {"guided_grammar": "start: a\n" + "a: b | c\n" * 200_000},
    "a pattern in a schema": lambda: _schema({"type": "string", "pattern": "(a+)+$" * 20_000}),
}
CASES = [
    AttackCase(f"structures: {name}", post_structure(fields), (200, *REFUSAL_STATUSES))
    for name, fields in _STRUCTURES.items()
]
