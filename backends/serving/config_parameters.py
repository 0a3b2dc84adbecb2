"""The parameters of a model's `config.pbtxt`, as Triton hands them over: `{"max_rows": {"string_value": "8"}}`."""

import json
from collections.abc import Mapping
from typing import Any


def string_values(parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The text of each parameter."""
    return {name: str(value.get("string_value", "")).strip() for name, value in parameters.items()}


def json_value(values: Mapping[str, str], name: str, usual: Any) -> Any:
    """What a parameter says in JSON; `usual` where it is not there or empty. Raises `ValueError`, naming it."""
    text = values.get(name)
    if not text:
        return usual
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError(f"The parameter {name} is {text!r}, which is not JSON.") from None


def integer_value(values: Mapping[str, str], name: str, usual: int | None, low: int = 1) -> int:
    """A whole number of at least `low`; `usual` None: it has to be there. Raises `ValueError`, naming it."""
    value = json_value(values, name, usual)
    if type(value) is not int or value < low:
        raise ValueError(f"The parameter {name} is {value!r}; it must be an integer of at least {low}.")
    return value
