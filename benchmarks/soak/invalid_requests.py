"""The invalid requests of the soak, in every dialect. Each must be refused at once, with an error message."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.models import CHAT_MODEL, EMBEDDING_MODEL, IMAGE_MODEL
from benchmarks.soak.workloads import drawing, multipart

MAX_BODY_BYTES = 4 * 1024 * 1024
"""The largest request body that the gateway accepts during the soak, in bytes."""
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class InvalidRequestCase:
    """One invalid request, and the allowed statuses of its response."""

    title: str
    path: str
    body: bytes
    statuses: Sequence[int] = (400,)
    content_type: str = _JSON
    method: str = "POST"
    key: str | None = None
    """The API key. None: that of the caller who sends the request."""


def make_invalid_requests() -> list[InvalidRequestCase]:
    """Return all invalid requests."""
    return [*_common(), *_chats(), *_embeddings(), *_images(), *_others()]


def _json(title: str, path: str, body: Any, *statuses: int, **options: Any) -> InvalidRequestCase:
    return InvalidRequestCase(title, path, json.dumps(body).encode(), statuses or (400,), **options)


def _common() -> list[InvalidRequestCase]:
    """Return requests that are invalid on every route with JSON bodies."""
    valid: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {
            "model": CHAT_MODEL,
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 4,
        },
        "/v1/completions": {"model": CHAT_MODEL, "prompt": "Hello", "max_tokens": 4},
        "/v1/embeddings": {"model": EMBEDDING_MODEL, "input": "Hello"},
        "/v1/images/generations": {"model": IMAGE_MODEL, "prompt": "a red circle"},
        "/tritonic/v1/chat/completions": {"model": CHAT_MODEL, "messages": [{"role": "user", "content": "Hello"}]},
        "/tritonic/v1/images/generations": {"model": IMAGE_MODEL, "prompt": "a red circle"},
    }
    cases = []
    for path, body in valid.items():
        text = json.dumps(body).encode()
        other_model = EMBEDDING_MODEL if body["model"] == CHAT_MODEL else CHAT_MODEL
        cases += [
            InvalidRequestCase("no JSON", path, text[:-2]),
            InvalidRequestCase("no body", path, b""),
            InvalidRequestCase("no UTF-8", path, text.replace(b"Hello", b"\xff\xfe").replace(b"red", b"\xff\xfe")),
            InvalidRequestCase("a list", path, b"[" + text + b"]"),
            InvalidRequestCase("nested too deep", path, b"[" * 50_000, (400, 413)),
            InvalidRequestCase("too large", path, b" " * MAX_BODY_BYTES + text, (413,)),
            _json("an unknown model", path, {**body, "model": "nobody"}, 404),
            _json("a model without this operation", path, {**body, "model": other_model}),
            InvalidRequestCase("a broken form", path, b"--x\r\nContent-Disposition: form-data; name=", (400, 415),
                  "multipart/form-data; boundary=x"),
            InvalidRequestCase("an unknown key", path, text, (401,), key="sk-nobody"),
        ]  # fmt: skip
    return cases


def _chats() -> list[InvalidRequestCase]:
    body = {"model": CHAT_MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    invalid_fields: list[dict[str, Any]] = [
        {"temperature": 9},
        {"messages": []},
        {"messages": "Hello"},
        {"messages": [{"role": "nobody", "content": "Hello"}]},
        {"structured_outputs": {"regex": "("}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "unheard of"}}}},
        {"max_tokens": 0},
        {"n": 100000},
        {"stop": [1]},
        {"logit_bias": {"x": 1}},
        {"tools": [{"type": "function"}]},
        {"stream": "perhaps"},
        {"messages": [{"role": "user", "content": "word " * 9000}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
    ]
    paths = ("/v1/chat/completions", "/tritonic/v1/chat/completions")
    return [_json(str(fields)[:60], path, {**body, **fields}) for path in paths for fields in invalid_fields]


def _embeddings() -> list[InvalidRequestCase]:
    body = {"model": EMBEDDING_MODEL, "input": "Hello"}
    invalid_fields: list[dict[str, Any]] = [
        {"input": []},
        {"input": ""},
        {"input": {"text": "Hello"}},
        {"input": ["Hello", 1]},
        {"input": [[10**12]]},
        {"input": "word " * 2000},
        {"input": ["a"] * 2049},
        {"encoding_format": "morse"},
        {"dimensions": 0},
    ]
    return [_json(str(fields)[:60], "/v1/embeddings", {**body, **fields}) for fields in invalid_fields]


def _images() -> list[InvalidRequestCase]:
    body = {"model": IMAGE_MODEL, "prompt": "a red circle"}
    invalid_fields: list[dict[str, Any]] = [
        {"prompt": ""},
        {"prompt": 5},
        {"prompt": "red " * 200},
        {"n": 11},
        {"n": 0},
        {"size": "1x1"},
        {"size": "large"},
        {"steps": 10**6},
        {"seed": -1},
        {"output_format": "bmp"},
        {"image": "data:image/png;base64,AAAA"},
        {"image": "http://127.0.0.1:1/x.png"},
    ]
    paths = ("/v1/images/generations", "/tritonic/v1/images/generations")
    # The gateway fetches nothing from loopback addresses and answers 403.
    cases = [_json(str(fields)[:60], path, {**body, **fields}, 400, 403) for path in paths for fields in invalid_fields]
    broken = drawing(0)[:-40]
    for files in ({}, {"image": b"no picture"}, {"image": broken}, {"image": drawing(0), "mask": drawing(1)[:100]}):
        form, content_type = multipart(body, files)
        cases.append(InvalidRequestCase(f"a form with {list(files)}", "/v1/images/edits", form, (400,), content_type))
    form, content_type = multipart(body, {"image": drawing(0)})
    cases.append(InvalidRequestCase("a form that breaks off", "/v1/images/edits", form[:-30], (400,), content_type))
    cases.append(
        InvalidRequestCase("a form without its boundary", "/v1/images/edits", form, (400,), "multipart/form-data")
    )
    cases.append(_json("a stream of the platform", "/tritonic/v1/images/generations", {**body, "stream": True}))
    return cases


def _others() -> list[InvalidRequestCase]:
    empty = json.dumps({}).encode()
    return [
        InvalidRequestCase("an unknown path", "/v1/nothing", empty, (404,)),
        InvalidRequestCase("an unknown platform", "/nobody/v1/chat/completions", empty, (404,)),
        InvalidRequestCase("an unknown task", "/tritonic/v1/images/task_0", b"", (404,), method="GET"),
        InvalidRequestCase("cancelling an unknown task", "/tritonic/v1/images/task_0", b"", (404,), method="DELETE"),
        InvalidRequestCase("another method", "/v1/chat/completions", b"", (405,), method="PUT"),
        InvalidRequestCase("a file without its signature", "/files/x.png", b"", (400, 403, 404), method="GET"),
    ]
