"""Explains in terms of JSON Schema why llguidance cannot compile a schema that `normalize_schema` returned."""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from backends.llm.structured_outputs.json_schema.document import escape_pointer

_MAX_REGEXES = 64
_MAX_SHOWN_CHARACTERS = 100
_UNSATISFIABLE = re.compile(r"required property '(.{1,200}?)' is unsatisfiable", re.S)


def explain_schema_error(schemas: Iterable[Any], error: str, explain_regex: Callable[[str], str | None]) -> str:
    """Return the reason why the caller's `schemas` cannot be enforced together, from llguidance's `error`.

    `explain_regex` returns the error of a regular expression, or None if it is valid.
    """
    if "nsatisfiable" in error:
        match = _UNSATISFIABLE.search(error)
        name = f" the required property '{match[1][:_MAX_SHOWN_CHARACTERS]}'" if match else " the schema"
        return f"no value satisfies{name}: its parts contradict each other."
    if "not disjoint" in error:
        return "two expressions of a 'patternProperties' could match the same name, which cannot be enforced."
    if "min/maxProperties" in error:
        return "'minProperties' and 'maxProperties' cannot be enforced if other schemas apply to the same object."
    if "multipleOf" in error:
        return "a 'multipleOf' has too many digits."
    if "NoExtension" in error[:40]:
        return "no text matches it."
    for count, (pointer, keyword, text) in enumerate(chain.from_iterable(map(_regexes, schemas))):
        if count == _MAX_REGEXES:
            break
        if (reason := explain_regex(text)) is not None:
            return f"'{keyword}' at '{pointer[:200]}' holds no expression that can be enforced: {reason}"
    return "the schema is too large or too deep."


def _regexes(schema: Any) -> Iterator[tuple[str, str, str]]:
    """Yield everything that looks like a regular expression: the pointer to its schema, its keyword and its text."""
    pending = [("#", schema)]
    while pending:
        pointer, part = pending.pop()
        if isinstance(part, dict):
            if isinstance(part.get("pattern"), str):
                yield pointer, "pattern", part["pattern"]
            if isinstance(part.get("patternProperties"), dict):
                yield from ((pointer, "patternProperties", text) for text in part["patternProperties"])
            pairs = [(escape_pointer(key), value) for key, value in part.items()]
        elif isinstance(part, list):
            pairs = [(str(number), value) for number, value in enumerate(part)]
        else:
            continue
        pending += [(f"{pointer}/{key}", value) for key, value in pairs if isinstance(value, dict | list)]
