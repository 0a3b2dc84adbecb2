"""Explains in the words of JSON Schema why llguidance cannot compile a schema that `normal` has returned."""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from backends.llm.structured_outputs.json_schema.document import escape_pointer

_MAX_REGEXES = 64
_MAX_SHOWN_CHARACTERS = 100
_UNSATISFIABLE = re.compile(r"required property '(.{1,200}?)' is unsatisfiable", re.S)


def explain_schema_error(schemas: Iterable[Any], error: str, wrong: Callable[[str], str | None]) -> str:
    """Return why the caller's `schemas` cannot be enforced together, of which the library says `error`.

    `wrong` says what is wrong with a regular expression.
    """
    if "nsatisfiable" in error:
        found = _UNSATISFIABLE.search(error)
        name = f" the required property '{found[1][:_MAX_SHOWN_CHARACTERS]}'" if found else " the schema"
        return f"no value satisfies{name}: its parts contradict each other."
    if "not disjoint" in error:
        return "two expressions of a 'patternProperties' could match the same name, which cannot be enforced."
    if "min/maxProperties" in error:
        return "'minProperties' or 'maxProperties' cannot be counted beside what other schemas say of the same object."
    if "multipleOf" in error:
        return "a 'multipleOf' has too many digits."
    if "NoExtension" in error[:40]:
        return "no text follows it."
    for count, (pointer, keyword, text) in enumerate(chain.from_iterable(map(_regexes, schemas))):
        if count == _MAX_REGEXES:
            break
        if (why := wrong(text)) is not None:
            return f"'{keyword}' at '{pointer[:200]}' holds no expression that can be enforced: {why}"
    return "the schema is too large or too deep."


def _regexes(schema: Any) -> Iterator[tuple[str, str, str]]:
    """All that looks like a regular expression, with the pointer to its schema and its keyword."""
    waiting = [("#", schema)]
    while waiting:
        pointer, part = waiting.pop()
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
        waiting += [(f"{pointer}/{key}", value) for key, value in pairs if isinstance(value, dict | list)]
