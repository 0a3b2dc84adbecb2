"""Compressed bodies: gzip is limited by its uncompressed size. And bodies in other Unicode encodings."""

import codecs
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from tests.fakes.triton import FakeTriton
from tests.wire.bodies.builders import (
    CHAT,
    COMPLETIONS,
    EDITS,
    EMBEDDINGS,
    GENERATIONS,
    LETTER,
    MB,
    chat_body,
    chat_messages_body,
    form_body,
    repeat,
    tool_call_message,
    user_message,
)
from tests.wire.conftest import MAX_BODY_BYTES
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.text_requests import check_error

pytestmark = pytest.mark.asyncio(loop_scope="session")

PLATFORM = "/tritonic/v1/chat/completions"
BODY = chat_body('"n":1')


async def compressed(
    gateway: RunningGateway, content: bytes, path: str = CHAT, coding: str = "gzip", **headers: str
) -> httpx.Response:
    return await gateway.http.post(path, content=content, headers={"content-encoding": coding, **headers})


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZip", "gzip, identity", "identity,gzip"])
async def test_gzip_is_read(gateway: RunningGateway, coding: str) -> None:
    assert (await compressed(gateway, gzip.compress(BODY), coding=coding)).status_code == 200
    several = gzip.compress(BODY[:20]) + gzip.compress(b"") + gzip.compress(BODY[20:], 0)
    assert (await compressed(gateway, several, PLATFORM, coding)).status_code == 200
    assert (await compressed(gateway, BODY, coding="Identity")).status_code == 200


async def test_gzip_arrives_in_pieces(gateway: RunningGateway, triton: FakeTriton) -> None:
    text = "".join(chr(0x4E00 + number % 20000) for number in range(900_000))  # work for threads, in several pieces
    whole = gzip.compress(json.dumps({"model": "hello", "messages": [{"role": "user", "content": text}]}).encode(), 1)

    async def pieces() -> AsyncIterator[bytes]:
        yield whole[:1]
        for at in range(1, len(whole), 70_001):
            yield whole[at : at + 70_001]

    response = await gateway.http.post(CHAT, content=pieces(), headers={"content-encoding": "gzip"})
    assert response.status_code == 200 and text in triton.calls[-1].prompt


async def test_forms_may_be_compressed(gateway: RunningGateway) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    plain = await gateway.http.post(GENERATIONS, content=form_body(b"a circle"), headers=headers)
    response = await compressed(gateway, gzip.compress(form_body(b"a circle")), GENERATIONS, **headers)
    assert (response.status_code, plain.status_code) == (200, 200)


@pytest.mark.parametrize("coding", ["deflate", "br", "zstd", "gzip, gzip", "br, gzip", "x" * 5000])
async def test_other_codings_are_refused(gateway: RunningGateway, guarded: RunningGateway, coding: str) -> None:
    for path in (CHAT, COMPLETIONS, EMBEDDINGS, GENERATIONS, EDITS, PLATFORM):
        response = await compressed(gateway, zlib.compress(BODY), path, coding)
        sentence = check_error(response, 415, code="unsupported_encoding", param="Content-Encoding")
        assert "gzip" in sentence and coding[:64] in sentence and len(sentence) < 300
        assert response.headers["accept-encoding"] == "gzip"
    check_error(await compressed(guarded, b"", coding=coding), 401, "authentication_error")  # who asks comes first


WHOLE = gzip.compress(BODY)
BROKEN: dict[str, tuple[bytes, str]] = {
    "not packed": (BODY, "header"),
    "zlib's own form": (zlib.compress(BODY), "header"),
    "nothing": (b"", "truncated"),
    "half a head": (WHOLE[:5], "truncated"),
    "half": (WHOLE[: len(WHOLE) // 2], "truncated"),
    "no sum": (WHOLE[:-8], "truncated"),
    "a byte is missing": (WHOLE[:-1], "truncated"),
    "a wrong sum": (WHOLE[:-8] + b"\0\0\0\0" + WHOLE[-4:], "data check"),
    "a wrong length": (WHOLE[:-1] + b"\1", "length check"),
    "a wrong block": (WHOLE[:10] + b"\xff" + WHOLE[11:], "block"),
    "something follows": (WHOLE + b"x", "follows"),
    "zeros follow": (WHOLE + b"\0" * 512, "follows"),
    "half a member follows": (WHOLE + WHOLE[:1], "truncated"),
    "members without end": (gzip.compress(b"") * 5000, "1024 members"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_invalid_gzip_is_refused(gateway: RunningGateway, name: str) -> None:
    content, why = BROKEN[name]
    sentence = check_error(await compressed(gateway, content), 400, code="invalid_value", param="Content-Encoding")
    assert why in sentence and "gzip" in sentence


async def test_decompressed_bodies_have_the_same_limits(narrow: RunningGateway, gateway: RunningGateway) -> None:
    """A megabyte of gzip unpacks to a gigabyte; decompression stops at the body limit."""
    full = b'{"x":"' + b"a" * (MAX_BODY_BYTES - 8) + b'"}'
    assert len(full) == MAX_BODY_BYTES
    check_error(await compressed(narrow, gzip.compress(full)), 400, param="model")
    for content in (gzip.compress(full + b" "), gzip.compress(b" " * 64 * MB), WHOLE + gzip.compress(b" " * MB)):
        sentence = check_error(await compressed(narrow, content), 413, code="request_too_large")
        assert str(MAX_BODY_BYTES) in sentence
    check_error(await compressed(narrow, gzip.compress(bytes(range(256)) * 300, 0)), 413, code="request_too_large")
    values = gzip.compress(b'{"x":[' + b"1," * 200_000 + b"1]}")
    assert "150000" in check_error(await compressed(gateway, values), 413, code="request_too_large")


async def test_decompressed_bodies_are_validated(gateway: RunningGateway) -> None:
    """Limits of texts, and of JSON in texts, apply to the uncompressed body."""
    calls = chat_messages_body(tool_call_message('{"a":[' + repeat("1", 160_000) + "]}"), user_message(LETTER))
    for content in (calls, chat_messages_body(user_message(json.dumps("x" * 8_000_001)))):
        small = gzip.compress(content)
        assert len(small) < 10_000
        check_error(await compressed(gateway, small), 413, code="request_too_large", param="messages")


async def test_a_byte_order_mark_is_skipped(gateway: RunningGateway, triton: FakeTriton) -> None:
    for content in (codecs.BOM_UTF8 + BODY, codecs.BOM_UTF8 + b" \n" + BODY):
        assert (await gateway.http.post(CHAT, content=content)).status_code == 200
    assert (await compressed(gateway, gzip.compress(codecs.BOM_UTF8 + BODY))).status_code == 200
    for content in (codecs.BOM_UTF8, codecs.BOM_UTF8 * 2 + BODY, BODY + codecs.BOM_UTF8):
        check_error(await gateway.http.post(CHAT, content=content), 400)


@pytest.mark.parametrize("name", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("write", [bytes.decode, lambda body: "\ufeff" + body.decode()], ids=["bare", "marked"])
async def test_other_unicode_encodings_are_named(
    gateway: RunningGateway, name: str, write: Callable[[bytes], str]
) -> None:
    sentence = check_error(await gateway.http.post(CHAT, content=write(BODY).encode(name)), 400, code="invalid_value")
    assert "UTF-8" in sentence and "UTF-16" in sentence
