"""Limits of bodies: an error names the limit that a body exceeds, and large bodies within it are served."""

import asyncio
import json
from typing import Any

import pytest

from gateway.dialects.openai import completions, embeddings
from gateway.dialects.openai.wire import chat
from tests.fakes.triton import FakeTriton
from tests.wire.bodies.builders import (
    CHAT,
    COMPLETIONS,
    EDITS,
    EMBEDDINGS,
    GENERATIONS,
    chat_body,
    chat_messages_body,
    form_body,
    repeat,
    tool_call_message,
)
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import check_error

pytestmark = pytest.mark.asyncio(loop_scope="session")

PLATFORM = "/tritonic"
BOUNDS = {
    CHAT: chat.MAX_JSON_VALUES,
    PLATFORM + CHAT: chat.MAX_JSON_VALUES,
    COMPLETIONS: completions.MAX_JSON_VALUES,
    EMBEDDINGS: embeddings.MAX_JSON_VALUES,
    GENERATIONS: 5000,
    EDITS: 5000,
    PLATFORM + EDITS: 5000,
    "/v1/images/variations": 5000,
}


@pytest.mark.parametrize("path", BOUNDS)
async def test_values_of_a_body_are_limited(gateway: RunningGateway, path: str) -> None:
    """Values count in every field, also in unknown ones. A string that looks like values has none."""
    values = BOUNDS[path]
    text = json.dumps("[{" * 2 * values)
    fits = f'{{"x":[{repeat("1", values - 3)}],"y":{text}}}'.encode()
    check_error((await gateway.http.post(path, content=fits)), 400, param=(await _first(gateway, path)))
    beyond = f'{{"x":[{repeat("1", values - 2)}],"y":{text}}}'.encode()
    response = await gateway.http.post(path, content=beyond)
    assert str(values) in check_error(response, 413, code="request_too_large")


async def _first(gateway: RunningGateway, path: str) -> str:
    """Return the first required field of this route."""
    return str((await gateway.http.post(path, content=b"{}")).json()["error"]["param"])


async def test_lists_and_objects_have_separate_limits(gateway: RunningGateway) -> None:
    for path in (CHAT, COMPLETIONS, EMBEDDINGS):
        response = await gateway.http.post(path, content=f'{{"x":[{repeat("[[[[[[[[1]]]]]]]]", 12_600)}]}}'.encode())
        assert "100000" in check_error(response, 413, code="request_too_large")


async def test_arguments_of_calls_count_as_json_of_the_body(gateway: RunningGateway) -> None:
    fits = chat_messages_body(
        *[tool_call_message('{"a":[' + repeat("1", 70_000) + "]}")] * 2, '{"role":"user","content":"Hi"}'
    )
    assert (await gateway.http.post(CHAT, content=fits)).status_code == 200
    beyond = chat_messages_body(
        *[tool_call_message('{"a":[' + repeat("1", 80_000) + "]}")] * 2, '{"role":"user","content":"Hi"}'
    )
    sentence = check_error(
        await gateway.http.post(CHAT, content=beyond), 413, code="request_too_large", param="messages"
    )
    assert "150000" in sentence
    old = {"role": "assistant", "function_call": {"name": "f", "arguments": f'{{"a":[{repeat("[]", 100_000)}]}}'}}
    response = await gateway.http.post(CHAT, json={"model": "hello", "messages": [old]})
    check_error(response, 413, code="request_too_large", param="messages")


async def test_a_long_conversation_of_an_agent(gateway: RunningGateway, triton: FakeTriton) -> None:
    """The model gets it as it gets a short one."""
    tools = [
        {
            "type": "function",
            "function": {
                "name": f"tool{i}",
                "description": "Does something.",
                "parameters": {
                    "type": "object",
                    "properties": {f"p{j}": {"type": "string", "enum": ["a", "b"]} for j in range(25)},
                },
            },
        }
        for i in range(128)
    ]  # fmt: skip
    call = {"id": "c", "type": "function", "function": {"name": "tool1", "arguments": json.dumps({"p1": [1, 2, 3]})}}
    turns = [
        turn
        for i in range(1000)
        for turn in (
            {"role": "user", "content": f"Question {i}, [and, {{so}} on]"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "x" * 1000}] * 2},
        )
    ]
    body = {"model": "hello", "messages": turns, "tools": tools}
    before = len(triton.calls)
    response = await gateway.http.post(CHAT, json=body)
    assert response.status_code == 200, response.text[:500]
    (call_,) = triton.calls[before:]
    assert "Question 0, [and, {so} on]" in call_.prompt and "Question 999, [and, {so} on]" in call_.prompt
    assert call_.prompt.count("x" * 1000) == 2000 and '"tool127"' in call_.prompt
    # Faults are told as they are of a small body.
    body["messages"] = [*turns, {"role": "wizard", "content": "Hi"}]
    check_error(await gateway.http.post(CHAT, json=body), 400, code="invalid_value", param="messages[3000].role")


async def test_token_ids_by_the_hundred_thousand(gateway: RunningGateway, triton: FakeTriton) -> None:
    ids = list(range(300_000))
    response = await gateway.http.post(EMBEDDINGS, json={"model": "vectors", "input": [ids, [7]]})
    assert response.status_code == 200, response.text[:500]
    assert [datum["embedding"][0] for datum in response.json()["data"]] == [300_000.0, 1.0]
    response = await gateway.http.post(EMBEDDINGS, json={"model": "vectors", "input": [[7], [*ids, True]]})
    check_error(response, 400, code="invalid_value", param="input[1][300000]")
    response = await gateway.http.post(COMPLETIONS, json={"model": "hello", "prompt": [*ids, 2**31]})
    check_error(response, 400, code="invalid_value", param="prompt[300000]")


async def test_text_beyond_the_setting_is_refused(triton: FakeTriton) -> None:
    async with run_gateway(triton.url, prompt_max_characters=1000) as gateway:
        half_of_limit = "x" * 500

        def message(text: str) -> dict[str, str]:
            return {"role": "user", "content": text}

        cases: list[tuple[str, str, Any, Any]] = [
            (CHAT, "messages", [message(half_of_limit)] * 2, [message(half_of_limit + "x")] * 2),
            (COMPLETIONS, "prompt", [half_of_limit, half_of_limit], [half_of_limit, half_of_limit + "x"]),
            (EMBEDDINGS, "input", [half_of_limit, half_of_limit], [half_of_limit, half_of_limit + "x"]),
        ]
        for path, field_, fits, beyond in cases:
            model = "vectors" if path == EMBEDDINGS else "hello"
            accepted = await gateway.http.post(path, json={"model": model, field_: fits})
            assert accepted.status_code == 200, accepted.text
            response = await gateway.http.post(path, json={"model": model, field_: beyond})
            assert "1000" in check_error(response, 413, code="request_too_large", param=field_)
        echo = {"model": "hello", "prompt": half_of_limit, "echo": True}
        assert (await gateway.http.post(COMPLETIONS, json={**echo, "n": 2})).status_code in (200, 502)
        check_error(
            await gateway.http.post(COMPLETIONS, json={**echo, "n": 3}), 413, code="request_too_large", param="echo"
        )
        # All texts of a conversation count, wherever they stand.
        call = {"function": {"name": "f", "arguments": json.dumps({"a": half_of_limit})}}
        turns = [
            {"role": "assistant", "reasoning_content": half_of_limit, "tool_calls": [call]},
            {"role": "user", "name": half_of_limit, "content": [{"type": "text", "text": "Hi"}]},
        ]
        response = await gateway.http.post(CHAT, json={"model": "hello", "messages": turns})
        check_error(response, 413, code="request_too_large", param="messages")


@pytest.mark.parametrize("charset", ["utf-16", "punycode", "zlib_codec", "unicode_escape"])
async def test_json_is_utf_8_whatever_its_content_type(gateway: RunningGateway, charset: str) -> None:
    """RFC 8259 defines no parameter `charset`."""
    headers = {"content-type": f"application/json; charset={charset}"}
    assert (await gateway.http.post(CHAT, content=chat_body('"n":1'), headers=headers)).status_code == 200


async def test_forms_are_utf_8_only(gateway: RunningGateway) -> None:
    for charset in ("punycode", "idna", "utf-7", "rot13"):
        headers = {"content-type": f"multipart/form-data; boundary=b; charset={charset}"}
        response = await gateway.http.post(GENERATIONS, content=form_body(b"a circle"), headers=headers)
        assert "UTF-8" in check_error(response, 400, code="invalid_value")
    headers = {"content-type": "multipart/form-data; boundary=b; charset=utf-8"}
    response = await gateway.http.post(GENERATIONS, content=form_body("ein größerer Kreis".encode()), headers=headers)
    assert response.status_code == 200, response.text


async def test_a_body_of_tiny_pieces(gateway: RunningGateway) -> None:
    """Each chunk comes in its own packet; none is kept as its own object."""
    body = chat_body('"n":1')

    async def pieces():
        for i in range(len(body)):
            yield body[i : i + 1]
            if not i % 20:
                await asyncio.sleep(0)

    assert (await gateway.http.post(CHAT, content=pieces())).status_code == 200


async def test_bodies_without_a_key_are_not_read(guarded: RunningGateway) -> None:
    """A request without a key is refused before its body arrives, whatever its headers declare."""
    url = guarded.url.removeprefix("http://")
    host, port = url.split(":")
    for head in (
        "content-length: 30000000",
        "content-length: 99999999999",
        "content-encoding: gzip\r\ncontent-length: 5",
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"POST {CHAT} HTTP/1.1\r\nhost: {url}\r\n{head}\r\n\r\n".encode())
        line = await asyncio.wait_for(reader.readline(), 30)
        assert b" 401 " in line
        writer.close()
