"""Values and containers of JSON are counted without parsing it."""

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import RequestTooLarge
from gateway.http import json_limits
from gateway.http.json_limits import (
    JSONLimits,
    check_json,
    check_json_size,
    check_json_texts,
    check_text_length,
    count_delimiters,
    outside_strings,
)

TEXTS = st.text(alphabet='a,[{"\\\n\u00f6\U0001f600]}:0', max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXTS, inner, max_size=6),
    max_leaves=40,
)
MB = 1024 * 1024


def count_values(value: Any) -> tuple[int, int]:
    """The values and the containers that a value holds, itself included."""
    if not isinstance(value, list | dict):
        return 1, 0
    inner = [count_values(member) for member in (value.values() if isinstance(value, dict) else value)]
    # A list without members is taken for one with one: what it costs is the same.
    return 1 + sum(values for values, _ in inner) + (not inner), 1 + sum(containers for _, containers in inner)


def serialized(value: Any, *, escaped: bool, indent: int | None) -> bytes:
    return json.dumps(value, ensure_ascii=escaped, indent=indent).encode()


@given(VALUES, st.booleans(), st.sampled_from([None, 1]), st.integers(1, 40))
@settings(max_examples=400, deadline=None)
def test_values_are_counted_like_a_parser_does(value: Any, escaped: bool, indent: int | None, size: int) -> None:
    """However the bytes are cut into slices."""
    data = serialized([value, "," * 5000], escaped=escaped, indent=indent)
    values, containers = count_values([value, ""])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_limits, "_SLICE", size)
        check_json(data, JSONLimits(values, containers))
        assert count_delimiters(data) >= values - 1
        with pytest.raises(RequestTooLarge, match=rf"JSON values than the limit of {values - 1}\."):
            check_json(data, JSONLimits(values - 1, containers))
        with pytest.raises(RequestTooLarge, match="lists and objects"):
            check_json(data, JSONLimits(values, containers - 1))
        texts = [data.decode(), data.decode()]
        check_json_texts(texts, JSONLimits(2 * values, 2 * containers), param="x")
        with pytest.raises(RequestTooLarge, match="'x' has more"):
            check_json_texts(texts, JSONLimits(2 * values - 2, 2 * containers), param="x")


@given(VALUES, st.integers(1, 40))
@settings(deadline=None)
def test_text_outside_of_strings(value: Any, size: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_limits, "_SLICE", size)
        outside = b"".join(outside_strings(serialized(value, escaped=False, indent=None)))
    assert not set(outside) - set(b"0123456789-truefalsn[]{},: ")


@pytest.mark.parametrize("digits", [512, 513, 1200])
@pytest.mark.parametrize("before", ["", "-", "0.", "1e"])
def test_long_numbers(before: str, digits: int) -> None:
    data = b'{"a":"' + b"9" * 10_000 + b'","b":[' + (before + "9" * digits).encode() + b"]}"
    bounds = JSONLimits(100)
    if digits > 512:
        with pytest.raises(RequestTooLarge, match="512 digits"):
            check_json(data, bounds)
    else:
        check_json(data, bounds)


def test_strings_of_digits_are_no_numbers() -> None:
    check_json(b'{"a":"' + b"9" * 100_000 + b'"}', JSONLimits(10))


def test_lengths() -> None:
    check_text_length(5, 5, param="x")
    check_json_size({"a": [1, 2]}, 11, param="x")
    check_json_size("x" * 5, 5, param="x")
    for wrong in (
        lambda: check_text_length(6, 5, param="x"),
        lambda: check_json_size({"a": [1, 2]}, 10, param="x"),
        lambda: check_json_size("x" * 6, 5, param="x"),
    ):
        with pytest.raises(RequestTooLarge, match="'x'") as refused:
            wrong()
        assert refused.value.param == "x"


COSTLY = {
    "strings": b'"",' * MB,
    "quotes": b'"' * 4 * MB,
    "escaped quotes": b'[{,"' + b'\\"' * 2 * MB + b'"',
    "backslashes": b'[{,"' + b"\\" * 4 * MB + b'"',
    "lists": b"[]," * MB,
    "commas in a string": b'"' + b"," * 4 * MB + b'"',
    "digits": b"9" * 4 * MB,
    "digits in a string": b'"' + b"9" * 4 * MB + b'"',
    "runs of 512 digits": b"," + b",".join([b"9" * 512] * 8000),
    "white space": b" " * 4 * MB,
}


@pytest.mark.parametrize("name", COSTLY)
@pytest.mark.parametrize("values", [1000, 10_000_000])
@pytest.mark.usefixtures("frozen_heap")
def test_counting_takes_linear_time(name: str, values: int) -> None:
    """These are 3 to 4 MB: some 15 ms at most."""
    began = time.thread_time()
    with contextlib.suppress(RequestTooLarge):
        check_json(COSTLY[name], JSONLimits(values, values))
    assert time.thread_time() - began < 0.15
