"""Requests of the soak that cannot be served, in every dialect: each must be refused by a sentence, at once."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.models import CHAT_MODEL, EMBEDDING_MODEL, IMAGE_MODEL
from benchmarks.soak.workloads import drawing, multipart

MAX_BODY_BYTES = 4 * 1024 * 1024
"""Bytes of a body that the gateway takes during the soak."""
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class InvalidRequestCase:
    """One request, and the statuses of which its answer must have one."""

    title: str
    path: str
    body: bytes
    statuses: Sequence[int] = (400,)
    content_type: str = _JSON
    method: str = "POST"
    key: str | None = None
    """Absent: that of the caller whose turn it is."""


def make_invalid_requests() -> list[InvalidRequestCase]:
    """All of them."""
    return [*_for_all(), *_chats(), *_embeddings(), *_pictures(), *_others()]


def _json(what: str, path: str, body: Any, *statuses: int, **more: Any) -> InvalidRequestCase:
    return InvalidRequestCase(what, path, json.dumps(body).encode(), statuses or (400,), **more)


def _for_all() -> list[InvalidRequestCase]:
    """What is wrong wherever JSON is taken."""
    right: dict[str, dict[str, Any]] = {
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
    found = []
    for path, body in right.items():
        text = json.dumps(body).encode()
        found += [
            InvalidRequestCase("no JSON", path, text[:-2]),
            InvalidRequestCase("no body", path, b""),
            InvalidRequestCase("no UTF-8", path, text.replace(b"Hello", b"\xff\xfe").replace(b"red", b"\xff\xfe")),
            InvalidRequestCase("a list", path, b"[" + text + b"]"),
            InvalidRequestCase("nested too deep", path, b"[" * 50_000, (400, 413)),
            InvalidRequestCase("too large", path, b" " * MAX_BODY_BYTES + text, (413,)),
            _json("an unknown model", path, {**body, "model": "nobody"}, 404),
            _json("a model that cannot", path, {**body, "model": EMBEDDING_MODEL if body["model"] == CHAT_MODEL else
            CHAT_MODEL}),
            InvalidRequestCase("a broken form", path, b"--x\r\nContent-Disposition: form-data; name=", (400, 415),
                  "multipart/form-data; boundary=x"),
            InvalidRequestCase("a key that nobody has", path, text, (401,), key="sk-nobody"),
        ]  # fmt: skip
    return found


def _chats() -> list[InvalidRequestCase]:
    body = {"model": CHAT_MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    worse: list[dict[str, Any]] = [
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
    return [_json(str(each)[:60], path, {**body, **each}) for path in paths for each in worse]


def _embeddings() -> list[InvalidRequestCase]:
    body = {"model": EMBEDDING_MODEL, "input": "Hello"}
    worse: list[dict[str, Any]] = [
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
    return [_json(str(each)[:60], "/v1/embeddings", {**body, **each}) for each in worse]


def _pictures() -> list[InvalidRequestCase]:
    body = {"model": IMAGE_MODEL, "prompt": "a red circle"}
    worse: list[dict[str, Any]] = [
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
    # Loopback may not be fetched from: 403 says so.
    found = [_json(str(each)[:60], path, {**body, **each}, 400, 403) for path in paths for each in worse]
    broken = drawing(0)[:-40]
    for files in ({}, {"image": b"no picture"}, {"image": broken}, {"image": drawing(0), "mask": drawing(1)[:100]}):
        form, kind = multipart(body, files)
        found.append(InvalidRequestCase(f"a form with {list(files)}", "/v1/images/edits", form, (400,), kind))
    form, kind = multipart(body, {"image": drawing(0)})
    found.append(InvalidRequestCase("a form that breaks off", "/v1/images/edits", form[:-30], (400,), kind))
    found.append(
        InvalidRequestCase("a form without its boundary", "/v1/images/edits", form, (400,), "multipart/form-data")
    )
    found.append(_json("a stream of the platform", "/tritonic/v1/images/generations", {**body, "stream": True}))
    return found


def _others() -> list[InvalidRequestCase]:
    nothing = json.dumps({}).encode()
    return [
        InvalidRequestCase("a path that is not there", "/v1/nothing", nothing, (404,)),
        InvalidRequestCase("a platform that is not there", "/nobody/v1/chat/completions", nothing, (404,)),
        InvalidRequestCase("a task that is not there", "/tritonic/v1/images/task_0", b"", (404,), method="GET"),
        InvalidRequestCase(
            "stopping a task that is not there", "/tritonic/v1/images/task_0", b"", (404,), method="DELETE"
        ),
        InvalidRequestCase("another method", "/v1/chat/completions", b"", (405,), method="PUT"),
        InvalidRequestCase("a file without its signature", "/files/x.png", b"", (400, 403, 404), method="GET"),
    ]
