"""Readers for the parameters of a model's `config.pbtxt`.

Triton passes them as `{"max_rows": {"string_value": "8"}}`.
"""

import json
import os
from collections.abc import Mapping
from typing import Any


def string_values(parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the string of each parameter by its name, without surrounding white space."""
    return {name: str(value.get("string_value", "")).strip() for name, value in parameters.items()}


def json_value(values: Mapping[str, str], name: str, default: Any) -> Any:
    """Parse a parameter as JSON; return `default` if it is absent or empty. Raises `ValueError`, naming it."""
    text = values.get(name)
    if not text:
        return default
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError(f"The parameter {name} is {text!r}, which is not JSON.") from None


def integer_value(values: Mapping[str, str], name: str, default: int | None, low: int = 1) -> int:
    """Parse a parameter as an integer of at least `low`; without a `default` it is required.

    Raises `ValueError`, naming the parameter.
    """
    value = json_value(values, name, default)
    if type(value) is not int or value < low:
        raise ValueError(f"The parameter {name} is {value!r}; it must be an integer of at least {low}.")
    return value


def thread_count(threads: int) -> int:
    """Return the parameter `threads`, or the number of cores that this process may use if it is 0."""
    return threads or len(os.sched_getaffinity(0))
