"""The validation of responses reports fields and types that the OpenAPI document does not have."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from tests.wire.openai.conformance import check_response

JSON, EVENTS = "application/json", "text/event-stream; charset=utf-8"
GOOD: dict[str, Any] = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
    "model": "m",
    "usage": {"prompt_tokens": 1, "total_tokens": 1},
    "code": 0,
    "message": "success",
}
CHUNK = {
    "id": "x",
    "object": "text_completion",
    "created": 1,
    "model": "m",
    "system_fingerprint": "fp",
    "choices": [{"index": 0, "text": "a", "logprobs": None, "finish_reason": None}],
}


def test_valid_responses_pass() -> None:
    check_response("/v1/embeddings", 200, JSON, json.dumps(GOOD).encode())
    check_response("/v1/completions", 200, EVENTS, f"data: {json.dumps(CHUNK)}\n\ndata: [DONE]\n\n".encode())


@pytest.mark.parametrize(
    "body",
    [
        {**GOOD, "more": 1},
        {key: value for key, value in GOOD.items() if key != "model"},
        {**GOOD, "model": None},
        {**GOOD, "code": 1},
        {**GOOD, "usage": None},
        {**GOOD, "usage": {"prompt_tokens": 1.5, "total_tokens": 1}},
        {**GOOD, "data": []},
    ],
)
def test_invalid_responses_do_not_pass(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        check_response("/v1/embeddings", 200, JSON, json.dumps(body).encode())


@pytest.mark.parametrize("end", ["", f"data: {json.dumps(CHUNK)}\n\n", "data: \n\n"], ids=["none", "chunk", "empty"])
def test_a_stream_needs_its_end(end: str) -> None:
    with pytest.raises(ValueError):
        check_response("/v1/completions", 200, EVENTS, f"data: {json.dumps(CHUNK)}\n\n{end}".encode())


def test_failures_have_their_own_shape_and_type() -> None:
    with pytest.raises(ValidationError):
        check_response("/v1/completions", 422, JSON, b'{"detail": []}')
    with pytest.raises(AssertionError):
        check_response("/v1/completions", 200, JSON + "; charset=utf-8", json.dumps(GOOD).encode())
