"""Size limits of JSON schemas in requests.

OpenAI takes 5,000 properties, 10 levels and 120,000 characters of names and choices:
https://platform.openai.com/docs/guides/structured-outputs
"""

from typing import Any

from gateway.errors import InvalidRequest

MAX_CHARACTERS = 262_144
"""Characters of a schema's names and strings, or of a regular expression, choices or a grammar. The LLM backend has
this limit too."""
MAX_VALUES = 32_768
"""JSON values of a schema."""
MAX_DEPTH = 100
"""Levels of nesting of a schema."""
MAX_TOOLS_CHARACTERS = 4 * MAX_CHARACTERS
"""Characters of the schemas of all tools of a request together."""


def check(schema: Any, path: str, most: int = MAX_CHARACTERS) -> int:
    """Return the number of characters of `schema`, the field at `path`. Raises `InvalidRequest` for one too large.

    The check visits at most `MAX_VALUES` values, which takes 5 ms.
    """
    characters = values = 0
    parts: list[tuple[Any, int]] = [(schema, 1)]
    while parts:
        value, level = parts.pop()
        values += 1
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, dict | list):
            if level > MAX_DEPTH:
                raise _too_large(path, f"{MAX_DEPTH} levels")
            if values + len(parts) + len(value) > MAX_VALUES:
                raise _too_large(path, f"{MAX_VALUES} values")
            if isinstance(value, dict):
                characters += sum(map(len, value))
                parts += [(part, level + 1) for part in value.values()]
            else:
                parts += [(part, level + 1) for part in value]
        if characters > most:
            raise _too_large(path, f"{most} characters")
    return characters


def check_text(text: str, path: str, most: int = MAX_CHARACTERS) -> None:
    """Raise `InvalidRequest` for a text that is too long."""
    if len(text) > most:
        raise _too_large(path, f"{most} characters")


def check_texts(texts: list[str], path: str) -> None:
    """Raise `InvalidRequest` for texts that are too long in total."""
    if sum(map(len, texts)) > MAX_CHARACTERS:
        raise _too_large(path, f"{MAX_CHARACTERS} characters")


def _too_large(path: str, most: str) -> InvalidRequest:
    return InvalidRequest(f"The field '{path}' is too large: it may have at most {most}.", param=path)
