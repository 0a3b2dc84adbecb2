"""Invalid requests: an error in OpenAI's format names the field and the expected value."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.fakes.triton import FakeTriton
from tests.wire.conftest import MAX_BODY_BYTES
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.text_requests import (
    CHAT,
    CHAT_STREAM,
    PLATFORM_CHAT,
    TEXT,
    TEXT_ROUTES,
    TextRoute,
    captured_call,
    chat,
    check_error,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

HI = [{"role": "user", "content": "Hi"}]

# field at fault, what is wrong with it, and what the sentence must speak of
BOTH = [
    ("temperature", -1, "0"),
    ("temperature", 3, "2"),
    ("temperature", "hot", "number"),
    ("temperature", True, "number"),
    ("temperature", 1e999, "number|2"),
    ("top_p", -0.1, "0"),
    ("top_p", 1.1, "1"),
    ("top_p", [], "number"),
    ("top_k", "x", "integer"),
    ("top_k", -2, "-1"),
    ("min_p", -0.1, "0"),
    ("min_p", 1.5, "1"),
    ("presence_penalty", 2.5, "2"),
    ("frequency_penalty", -2.5, "-2"),
    ("repetition_penalty", 0, "0"),
    ("n", 0, "1"),
    ("n", 1000, r"\d"),
    ("n", "2", "integer"),
    ("n", 1.5, "integer"),
    ("stop", ["a", "b", "c", "d", "e"], "4|four"),
    ("stop", 5, "string"),
    ("max_tokens", -1, "1|0"),
    ("max_tokens", 1.5, "integer"),
    ("max_tokens", "many", "integer"),
    ("seed", 2**70, r"less than \d{19}|64"),
    ("seed", "x", "integer"),
    ("stream", "yes", "bool"),
    ("stream_options", "usage", "object|dict"),
    ("stream_options", {"include_usage": True}, "stream"),
    ("user", 7, "string"),
    ("model", 7, "string"),
    ("model", None, "string"),
]
CHATS = [
    ("max_completion_tokens", 0, "1|0"),
    ("messages", "Hi", "list|array"),
    ("messages", None, "list|array"),
    ("messages", [], "1|empty|message"),
    ("messages", {"role": "user"}, "list|array"),
    ("messages[0]", ["Hi"], "object|dict"),
    ("messages[0].role", [{"content": "Hi"}], "role"),
    ("messages[0].role", [{"role": "wizard", "content": "Hi"}], "user"),
    ("messages[1].role", [*HI, {"role": 5, "content": "Hi"}], "user"),
    ("messages[0].content", [{"role": "user"}], "content|required"),
    ("messages[0].content", [{"role": "user", "content": None}], "string"),
    ("messages[0].content", [{"role": "user", "content": 5}], "string"),
    ("messages[0].content", [{"role": "user", "content": {"type": "text"}}], "string"),
    ("messages[0].content[0].text", [{"role": "user", "content": [{"type": "text"}]}], "text"),
    ("messages[0].content[1].text", [{"role": "user", "content": [
        {"type": "text", "text": "a"}, {"type": "text", "text": 5}]}], "string"),
]  # fmt: skip
COMPLETIONS = [("prompt", 5, "string"), ("prompt", {"text": "x"}, "string")]
CASES = [
    *((route, param, {param: value}, words) for route in (CHAT, PLATFORM_CHAT, TEXT) for param, value, words in BOTH),
    *(
        (route, param, {param.split("[")[0].split(".")[0]: value}, words)
        for route in (CHAT, PLATFORM_CHAT)
        for param, value, words in CHATS
    ),
    *((TEXT, param, {param: value}, words) for param, value, words in COMPLETIONS),
]


@pytest.mark.parametrize(
    ("route", "param", "fields", "message"), CASES, ids=[f"{c[0]}-{json.dumps(c[2])}"[:70] for c in CASES]
)
async def test_an_invalid_field_is_named(
    gateway: RunningGateway, triton: FakeTriton, route: TextRoute, param: str, fields: dict[str, Any], message: str
) -> None:
    before = len(triton.calls)
    body = json.dumps(route.body("hello") | fields)
    response = await gateway.http.post(route.path, content=body)
    sentence = check_error(response, 400, code="invalid_value", param=param)
    assert re.search(message, sentence), sentence
    assert len(triton.calls) == before


@pytest.mark.parametrize("route", TEXT_ROUTES, ids=str)
async def test_an_empty_stop_string_is_refused(gateway: RunningGateway, route: TextRoute) -> None:
    for stop in ("", ["a", ""]):
        response = await gateway.http.post(route.path, json=route.body("hello", stop=stop))
        assert response.status_code == 400
        assert response.json()["error"]["param"].startswith("stop")


@pytest.mark.parametrize("missing", ["model", "messages"])
async def test_a_missing_field_is_named(gateway: RunningGateway, missing: str) -> None:
    body = {"model": "hello", "messages": HI}
    del body[missing]
    sentence = check_error(await gateway.http.post(CHAT.path, json=body), 400, code="invalid_value", param=missing)
    assert "required" in sentence


BODIES = {
    "empty": b"",
    "blank": b"  \n",
    "text": b"hello",
    "cut short": b'{"model": "hello", "messages": [{"role": "us',
    "single quotes": b"{'model': 'hello'}",
    "trailing comma": b'{"model": "hello",}',
    "two objects": b'{"model": "hello"} {"model": "hello"}',
    "form": b"model=hello&messages=Hi",
    "list": b'[{"model": "hello"}]',
    "string": b'"hello"',
    "number": b"5",
    "null": b"null",
    "invalid UTF-8": b'{"model": "hello", "messages": [{"role": "user", "content": "\xff\xfe"}]}',
    "UTF-16": '{"model": "hello", "messages": []}'.encode("utf-16"),
    "lone surrogate": rb'{"model": "hello", "messages": [{"role": "user", "content": "a\ud800b"}]}',
    "surrogates in the wrong order": rb'{"model": "hello", "messages": [{"role": "user", "content": "\udc00\ud800"}]}',
    "surrogate as UTF-8": b'{"model": "hello", "messages": [{"role": "user", "content": "\xed\xa0\x80"}]}',
    "raw control character": b'{"model": "hello", "messages": [{"role": "user", "content": "a\x01b"}]}',
    "deep lists": b'{"model": "hello", "messages": ' + b"[" * 40_000,
    "deep closed lists": b'{"model": "hello", "messages": ' + b"[" * 40_000 + b"]" * 40_000 + b"}",
    "deep objects": b'{"a":' * 40_000 + b"1" + b"}" * 40_000,
    "deep in an ignored field": b'{"model": "hello", "metadata": ' + b"[" * 40_000 + b"]" * 40_000
    + b', "messages": [{"role": "user", "content": "Hi"}]}',
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("path", [CHAT.path, PLATFORM_CHAT.path, TEXT.path])
async def test_bodies_that_are_no_json_object_are_refused(gateway: RunningGateway, path: str, name: str) -> None:
    headers = {"Content-Type": "application/json"}
    response = await gateway.http.post(path, content=BODIES[name], headers=headers)
    sentence = check_error(response, 400, code="invalid_value", param=None)
    assert "JSON" in sentence
    assert len(sentence) < 500


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
async def test_invalid_numbers_are_refused(gateway: RunningGateway, number: str) -> None:
    body = f'{{"model": "hello", "temperature": {number}, "messages": [{{"role": "user", "content": "Hi"}}]}}'
    response = await gateway.http.post(CHAT.path, content=body)
    assert response.status_code == 400
    check_error(response, 400, code="invalid_value", param=response.json()["error"]["param"])
    assert response.json()["error"]["param"] in (None, "temperature")


async def test_an_unknown_model_is_not_found(gateway: RunningGateway) -> None:
    for route in TEXT_ROUTES:
        for name in ("gpt-4-turbo", "", "folder", "hello ", "../hello", "x" * 5000):
            response = await gateway.http.post(route.path, json=route.body(name))
            check_error(response, 404, code="model_not_found", param="model")


async def test_a_model_without_the_operation_is_refused(gateway: RunningGateway) -> None:
    """A base model has no chat template. A model with other tensors is not a text model."""
    response = await chat(gateway, "base")
    assert response.status_code in (400, 404)
    assert "base" in check_error(response, response.status_code, param="model")
    assert (await gateway.http.post(TEXT.path, json=TEXT.body("base"))).status_code == 200
    for model in ("vision", "garbled"):
        response = await chat(gateway, model)
        assert response.status_code in (400, 404), response.text
        check_error(response, response.status_code, param="model")


async def test_a_template_may_refuse_a_conversation(gateway: RunningGateway) -> None:
    sentence = check_error(await chat(gateway, "picky"), 400, code="invalid_value", param="messages")
    assert "Conversation roles must alternate user/assistant." in sentence


async def test_text_of_every_kind_passes_through(gateway: RunningGateway, triton: FakeTriton) -> None:
    for text in (
        "",
        "a\x00b",
        "\u202eright\u202c to left שלום",
        "👩\u200d👩\u200d👧",
        "\ufeff\ufffe\U0010ffff",
        " " * 9,
        "x" * 10**6,
    ):
        call = await captured_call(gateway, triton, messages=[{"role": "user", "content": text}])
        assert call.prompt == f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


async def test_the_last_of_two_equal_keys_counts(gateway: RunningGateway, triton: FakeTriton) -> None:
    body = (
        '{"model": "nothing", "messages": [{"role": "user", "content": "Hi"}], "seed": 1, "seed": 2, "model": "hello"}'
    )
    response = await gateway.http.post(CHAT.path, content=body)
    assert (response.status_code, triton.calls[-1].sampling) == (200, {"seed": 2})


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 8192):
        yield body[at : at + 8192]


async def test_a_body_that_does_not_arrive_times_out(narrow: RunningGateway) -> None:
    address = httpx.URL(narrow.url)
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(f"POST {CHAT.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")  # to the end: the gateway closes
        writer.close()
    assert head.startswith(b"HTTP/1.1 408 ") and b"connection: close" in head.lower()
    error = json.loads(body)["error"]
    assert error["code"] == "request_timeout" and "within 0.8 seconds" in error["message"]


@pytest.mark.parametrize("route", [CHAT, CHAT_STREAM, TEXT], ids=str)
async def test_a_body_over_the_limit_is_refused(narrow: RunningGateway, route: TextRoute) -> None:
    body = json.dumps(route.body("hello", "x" * MAX_BODY_BYTES)).encode()
    sentence = check_error(await narrow.http.post(route.path, content=body), 413, code="request_too_large")
    assert str(MAX_BODY_BYTES) in sentence
    response = await narrow.http.post(route.path, content=in_pieces(body))
    assert "content-length" not in response.request.headers
    check_error(response, 413, code="request_too_large")


async def test_a_body_of_exactly_the_limit_is_accepted(narrow: RunningGateway) -> None:
    room = MAX_BODY_BYTES - len(json.dumps(CHAT.body("hello", "")).encode())
    for size, status in ((room, 200), (room + 1, 413)):
        body = json.dumps(CHAT.body("hello", "x" * size)).encode()
        assert (await narrow.http.post(CHAT.path, content=body)).status_code == status
        assert (await narrow.http.post(CHAT.path, content=in_pieces(body))).status_code == status


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT.path, "POST"),
        ("PUT", CHAT.path, "POST"),
        ("DELETE", TEXT.path, "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/hello", "GET"),
        ("POST", "/health/live", "GET"),
    ],
)
async def test_a_wrong_method_is_refused(gateway: RunningGateway, method: str, path: str, allowed: str) -> None:
    response = await gateway.http.request(method, path)
    check_error(response, 405, code="method_not_allowed")
    assert allowed in response.headers["allow"]


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v2/chat/completions", "/v1/chat/completions/x", "/%00"])
async def test_an_unknown_path_is_not_found(gateway: RunningGateway, path: str) -> None:
    for method in ("GET", "POST"):
        check_error(await gateway.http.request(method, path), 404, code="not_found")


@pytest.mark.parametrize(
    "key", ["", "x", "٣", "-1", "x" * 100_000], ids=["empty", "letter", "arabic", "negative", "long"]
)
async def test_an_invalid_logit_bias_key_is_named_briefly(gateway: RunningGateway, key: str) -> None:
    response = await chat(gateway, logit_bias={key: 1})
    sentence = check_error(response, 400, param="logit_bias." + (key[:64] or "''"))
    assert len(sentence) < 300
