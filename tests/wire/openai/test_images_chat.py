"""Chats with image models."""

import base64
import re
from typing import Any

import httpx
import pytest

from tests.fakes.image_model import color_of_seed
from tests.fakes.triton import FakeTriton
from tests.wire.dialects import WireDialect, for_each_dialect
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.conformance import validate_exactly
from tests.wire.openai.image_requests import encoded_image, open_image, post_image_request, scalar_tensors
from tests.wire.openai.text_requests import check_error, events

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT = "/v1/chat/completions"
MARKDOWN = re.compile(r"!\[image\]\((http://[^)]+)\)")
PICTURE, OTHER = encoded_image(), encoded_image(colour=9)


def part(data: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(data).decode()}"}}


def image_url(message: dict[str, Any]) -> str:
    """Return the address of the image that is the whole content of a message."""
    image = MARKDOWN.fullmatch(message["content"])
    assert image
    return image[1]


async def chat(gateway: RunningGateway, *messages: Any, **fields: Any) -> httpx.Response:
    turns = [{"role": "user", "content": m} if isinstance(m, str | list) else m for m in messages]
    return await gateway.http.post(CHAT, json={"model": "shapes", "messages": turns, **fields})


async def test_the_answer_is_an_image(gateway: RunningGateway, triton: FakeTriton) -> None:
    system = {"role": "system", "content": "You are a helpful assistant."}
    response = await chat(gateway, system, "a red circle", seed=3, temperature=0.5, max_tokens=100)
    (choice,) = response.json()["choices"]
    assert (choice["finish_reason"], response.json()["object"]) == ("stop", "chat.completion")
    assert scalar_tensors(triton.calls[-1]) == {
        "prompt": "a red circle",
        "num_images": 1,
        "output_format": "png",
        "seed": 3,
    }
    url = image_url(choice["message"])
    file = await gateway.http.get(url)
    assert (file.headers["content-type"], open_image(file.content).getpixel((0, 0))) == ("image/png", color_of_seed(3))


async def test_several_answers_are_several_images(gateway: RunningGateway) -> None:
    choices = (await chat(gateway, "x", n=3)).json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert len({image_url(choice["message"]) for choice in choices}) == 3


async def test_a_stream_reports_progress(gateway: RunningGateway) -> None:
    *chunks, done = events(await chat(gateway, "x", stream=True))
    assert done == "[DONE]"
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    *lines, last = text.split("\n")
    assert lines == ["> Progress: 25.0%", "> Progress: 50.0%", "> Progress: 75.0%", "> Progress: 100.0%", ""]
    assert MARKDOWN.fullmatch(last)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_progress_lines_are_limited(gateway: RunningGateway) -> None:
    *chunks, _ = events(await chat(gateway, "x", stream=True, model="slow-painter"))
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert text.count("> Progress") == 10


@for_each_dialect
async def test_images_of_the_conversation_are_edited(
    gateway: RunningGateway, triton: FakeTriton, dialect: WireDialect
) -> None:
    content = [{"type": "text", "text": "make it blue"}, part(PICTURE)]
    response = await gateway.http.post(
        dialect.chat.path, json=dialect.chat.body("shapes", messages=[{"role": "user", "content": content}])
    )
    assert response.status_code == 200, response.text
    validate_exactly(dialect.chat_answer, response.content)
    assert image_url(response.json()["choices"][0]["message"]).startswith(gateway.url)
    assert (triton.calls[-1].tensors["image"], triton.calls[-1].prompt) == ([PICTURE], "make it blue")


async def test_the_latest_image_is_edited(gateway: RunningGateway, triton: FakeTriton) -> None:
    answer = {"role": "assistant", "content": "Done."}
    first, second = ([{"type": "text", "text": "this"}, part(data)] for data in (PICTURE, OTHER))
    response = await chat(gateway, first, answer, second, answer, "and now green")
    assert response.status_code == 200, response.text
    assert (triton.calls[-1].tensors["image"], triton.calls[-1].prompt) == ([OTHER], "and now green")


async def test_the_generated_image_is_edited_next(gateway: RunningGateway, triton: FakeTriton) -> None:
    answer = (await chat(gateway, "a red circle", seed=5)).json()["choices"][0]["message"]
    file = await gateway.http.get(image_url(answer))
    response = await chat(gateway, "a red circle", answer, "make it blue")
    assert response.status_code == 200, response.text
    assert triton.calls[-1].tensors["image"] == [file.content]


async def test_generated_images_may_be_sent_by_url(gateway: RunningGateway, triton: FakeTriton) -> None:
    url = (await post_image_request(gateway, response_format="url", seed=8)).json()["data"][0]["url"]
    content: list[Any] = [{"type": "text", "text": "make it blue"}, {"type": "image_url", "image_url": {"url": url}}]
    response = await chat(gateway, content)
    assert response.status_code == 200, response.text
    assert triton.calls[-1].tensors["image"] == [(await gateway.http.get(url)).content]
    content[1]["image_url"]["url"] = url[:-4]
    check_error(await chat(gateway, content), 400, param="messages[0].content[1].image_url")


async def test_image_links_of_other_hosts_are_ignored(gateway: RunningGateway, triton: FakeTriton) -> None:
    for url in ("https://example.com/a.png", f"{gateway.url}/files/none.png?expires=1&signature=x", "x", ""):
        answer = {"role": "assistant", "content": f"![image]({url})"}
        response = await chat(gateway, "a red circle", answer, "a blue one")
        assert response.status_code == 200, response.text
        assert "image" not in triton.calls[-1].tensors


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([[part(PICTURE)]], "messages[0]"),
        (["  "], "messages[0]"),
        (["x", {"role": "assistant", "content": "y"}], "messages[1]"),
        ([{"role": "system", "content": "x"}], "messages[0]"),
    ],
    ids=["no-text", "blank", "assistant", "system"],
)
async def test_a_prompt_is_required(gateway: RunningGateway, messages: list[Any], param: str) -> None:
    check_error(await chat(gateway, *messages), 400, param=param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"n": 11}, "n"),
    ],
)
async def test_text_options_are_refused_for_images(gateway: RunningGateway, fields: dict[str, Any], param: str) -> None:
    check_error(await chat(gateway, "x", **fields), 400, code="unsupported_parameter", param=param)


async def test_a_model_without_edits_refuses_images(gateway: RunningGateway) -> None:
    content = [{"type": "text", "text": "x"}, part(PICTURE)]
    check_error(
        await chat(gateway, content, model="paint-only"),
        400,
        code="unsupported_parameter",
        param="messages[0].content[1]",
    )


async def test_a_model_that_fails(gateway: RunningGateway) -> None:
    check_error(await chat(gateway, "x", model="broken-painter"), 502, "server_error", "model_failed")
    check_error(await chat(gateway, "x", model="broken-painter", stream=True), 502, "server_error", "model_failed")
