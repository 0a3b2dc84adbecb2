"""Numbers and booleans of forms, which arrive as texts."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic.fields import FieldInfo
from pydantic_core import from_json

_MAX_NUMBER_CHARACTERS = 64
"""Characters of a number or boolean in a form; longer texts are not parsed."""


def holds_numbers(annotation: Any) -> bool:
    """Return whether a field with this annotation holds a number or a boolean."""
    return any(kind in (int, float, bool) for kind in get_args(annotation) or (annotation,))


def parse_number(value: Any) -> Any:
    """Return the number or boolean that a text spells, or `value` itself: validation then refuses it."""
    if not isinstance(value, str) or len(value) > _MAX_NUMBER_CHARACTERS:
        return value
    try:
        read = from_json(value.strip().lower() if value.strip().lower() in ("true", "false") else value)
    except ValueError:
        return value
    return read if isinstance(read, int | float) else value


def parse_fields(form: Mapping[str, Any], model_fields: Mapping[str, FieldInfo]) -> dict[str, Any]:
    """Convert the texts of a form to the types of the fields of a model, and drop empty ones.

    A text that is no number stays a text; validation then refuses it.
    """
    fields = {field.alias or name: field for name, field in model_fields.items()}
    return {
        name: parse_number(value) if name in fields and holds_numbers(fields[name].annotation) else value
        for name, value in form.items()
        if value != ""
    }
