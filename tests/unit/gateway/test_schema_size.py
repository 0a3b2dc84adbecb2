"""The size limit of schemas, checked in bounded time."""

import time
from typing import Any

import pytest

from gateway.dialects.openai.wire import schema_limits
from gateway.errors import InvalidRequest


def chain(levels):
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"a": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "most"),
    [
        ({"enum": [[]] * 3_000_000}, "32768 values"),
        ({"anyOf": [{"enum": [[]] * 1000} for _ in range(2000)]}, "32768 values"),
        ({str(number): 1 for number in range(1_000_000)}, "32768 values"),
        ({"description": "x" * 10_000_000}, "262144 characters"),
        ({"enum": ["x" * 1000] * 300}, "262144 characters"),
        (chain(500_000), "100 levels"),
        ([[]] * 3_000_000, "32768 values"),
    ],
    ids=range(7),
)
@pytest.mark.usefixtures("frozen_heap")
def test_a_schema_that_is_too_large_is_refused_at_once(schema, most):
    spent = time.thread_time()
    with pytest.raises(InvalidRequest, match=f"'tools' is too large: it may have at most {most}"):
        schema_limits.check(schema, "tools")
    assert time.thread_time() - spent < 0.1
    while isinstance(schema, dict) and "a" in schema:  # what is so deep cannot be let go at once
        schema = schema.pop("a")


def test_the_size_of_a_schema_counts_names_and_strings():
    assert schema_limits.check({"ab": ["cde", 5, None, {"f": True}]}, "x") == 6
    assert schema_limits.check(True, "x") == schema_limits.check(None, "x") == 0
    assert schema_limits.check(chain(99), "x") == 99
