"""Malformed bodies beyond the errors that a schema describes. Each gets an answer, or a 4xx with an error message."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.fuzzing import hypothesis_settings
from tests.wire.background_gateway import BackgroundGateway
from tests.wire.openai.conformance import check_response

FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "caller",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "name": "n", "content": [{"type": "text", "text": "t"}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "r"},
            {"role": "tool", "tool_call_id": "call_1", "content": "1"},
        ],
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": True,
        "response_format": {"type": "text"},
        "structured_outputs": None,
        "stream": True,
        "stream_options": {"include_usage": True},
        "logprobs": True,
        "top_logprobs": 2,
        "logit_bias": {"5": 1},
        "stop": None,  # stop strings that could cut an enforced call are refused
        "stop_token_ids": None,
        "temperature": 0.5,
        "max_tokens": 5,
        "n": 1,
        "seed": 1,
        "chat_template_kwargs": {"x": 1},
    },
    "/v1/completions": {
        "model": "scored",
        "prompt": ["a", "b"],
        "echo": True,
        "logprobs": 1,
        "n": 2,
        "best_of": 2,
        "stream": True,
        "stream_options": {"include_usage": True},
        "guided_json": None,
        "response_format": {"type": "text"},
        "stop": ["a", "b"],
        "stop_token_ids": [1],
        "suffix": "",
        "max_tokens": 5,
    },
    "/v1/images/generations": {
        "model": "shapes",
        "prompt": "p",
        "n": 1,
        "size": "128x128",
        "width": 128,
        "height": 128,
        "response_format": "b64_json",
        "output_format": "jpeg",
        "output_compression": 50,
        "quality": "low",
        "style": "vivid",
        "background": "auto",
        "stream": True,
        "partial_images": 1,
        "seed": 1,
        "steps": 2,
        "step": 2,
        "guidance_scale": 2.0,
        "negative_prompt": "q",
        "user": "u",
        "image": None,
        "images": None,
        "mask": None,
        "strength": None,
        "markup": None,
    },
    "/v1/videos": {
        "model": "film",
        "prompt": "p",
        "seconds": "0.5",
        "size": "64x64",
        "fps": 8,
        "seed": 1,
        "steps": 2,
        "guidance_scale": 2.0,
        "negative_prompt": "q",
        "quality": 50,
        "input_reference": None,
        "strength": None,
        "webhook_url": "https://hooks.example/",
    },
    "/v1/embeddings": {"model": "vectors", "input": [[1, 2], [3]], "encoding_format": "base64", "user": "u"},
}
# JSON that Python's own encoder cannot write. Each mark is replaced in the encoded body.
RAW_BODIES = {
    "@1@": "NaN",
    "@2@": "-Infinity",
    "@3@": "1e400",
    "@4@": "1" + "0" * 400,
    "@5@": "-" + "9" * 30,
    "@6@": '"\\ud800"',
    "@7@": "[" * 300 + "]" * 300,
    "@8@": '{"a":' * 300 + "1" + "}" * 300,
    "@9@": '{"type":"text","type":"json_schema"}',
    "@10@": "-0.0",
    "@11@": "1.0",
    "@12@": '"\\u0000"',
    "@13@": "[" * 100_000,
}
ODD_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 0.5, 1e308, "", " ", "\x00", "·one", "[key]", "a" * 5000),
    *("1", "null", "{}", "[]", "\u202e", [], {}, [[]], [{}], [None], {"": ""}, {"type": None}, {"·one": 1}, [""] * 300),
    *RAW_BODIES,
]


def json_paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a body: keys of objects and indexes of arrays."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*path, key)
        yield from json_paths(value, (*path, key))


def to_json(body: Any) -> bytes:
    text = json.dumps(body)
    for mark, raw in RAW_BODIES.items():
        text = text.replace(f'"{mark}"', raw)
    return text.encode()


def replace_at(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of `body` with `value` at `path`, or `body` itself if it no longer has the path."""
    changed = copy.deepcopy(body)
    node = changed
    try:
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
    except (IndexError, KeyError, TypeError):
        return body
    return changed


def post(gateway: BackgroundGateway, path: str, body: bytes) -> int:
    response = httpx.post(gateway.url + path, content=body, timeout=20, trust_env=False)
    assert response.status_code in (200, 400, 404, 413), response.text[:500]
    assert len(response.content) < 100_000 or response.status_code == 200, "an error message repeats the request"
    check_response(path, response.status_code, response.headers["content-type"], response.content)
    return response.status_code


@pytest.mark.parametrize("path", BODIES)
def test_the_unchanged_bodies_are_valid(gateway: BackgroundGateway, path: str) -> None:
    response = httpx.post(gateway.url + path, content=to_json(BODIES[path]), timeout=20, trust_env=False)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("path", BODIES)
def test_every_value_replaced_by_every_odd_value_is_answered(gateway: BackgroundGateway, path: str) -> None:
    """All combinations, one at a time."""
    with httpx.Client(base_url=gateway.url, timeout=20, trust_env=False) as http:
        for location in json_paths(BODIES[path]):
            for value in ODD_VALUES:
                response = http.post(path, content=to_json(replace_at(BODIES[path], location, value)))
                assert response.status_code in (200, 400, 404, 413), (location, value, response.text[:500])
                assert len(response.content) < 100_000 or response.status_code == 200, (location, value)
                check_response(path, response.status_code, response.headers["content-type"], response.content)


@given(data=st.data())
@hypothesis_settings(150)
def test_several_odd_values_in_one_body_are_answered(gateway: BackgroundGateway, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(BODIES)))
    body = BODIES[path]
    odd = st.sampled_from(ODD_VALUES) | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
    for _ in range(data.draw(st.integers(1, 4))):
        body = replace_at(body, data.draw(st.sampled_from(list(json_paths(body)) or [()])), data.draw(odd))
    post(gateway, path, to_json(body))


@given(body=st.binary(max_size=300))
@hypothesis_settings(60)
def test_random_bytes_are_refused(gateway: BackgroundGateway, body: bytes) -> None:
    for path in BODIES:
        assert post(gateway, path, body) == 400


@pytest.mark.parametrize("path", BODIES)
def test_large_bodies_are_answered(gateway: BackgroundGateway, path: str) -> None:
    tool = {"type": "function", "function": FUNCTION}
    for name, value in (
        ("tools", [tool] * 10_000),
        ("messages", [{"role": "user", "content": "x"}] * 100_000),
        ("prompt", [1] * 200_000 + ["x"]),
        ("input", ["x"] * 200_000),
        ("logit_bias", {str(i): 1 for i in range(100_000)}),
        ("stop", ["x"] * 100_000),
        ("model", "x" * 1_000_000),
        ("tool_choice", {"type": "function", "function": {"name": "x" * 1_000_000}}),
        ("x" * 1_000_000, 1),
        ("response_format", {"type": "x" * 1_000_000}),
        ("logit_bias", {"x" * 1_000_000: 1}),
    ):
        post(gateway, path, to_json({**BODIES[path], name: value}))
    duplicated = to_json(BODIES[path])[:-1] + b', "model": "nothing"}'
    assert post(gateway, path, duplicated) == 404  # the last of two equal keys counts
