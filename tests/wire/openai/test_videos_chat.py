"""Chats with video models."""

import base64
import io
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from PIL import Image

from tests.fakes.triton import FakeTriton
from tests.wire.dialects import WireDialect, for_each_dialect
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.image_requests import encoded_image
from tests.wire.openai.text_requests import check_error, events
from tests.wire.openai.video_requests import KEY, frames, run_filming

pytestmark = pytest.mark.asyncio(loop_scope="session")

LINK = re.compile(r"\[video\]\((http://[^)]+\.mp4\?[^)]+)\)")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[FakeTriton, RunningGateway]]:
    async with run_filming(tmp_path_factory.mktemp("state")) as both:
        yield both


@pytest.fixture
def filming(running: tuple[FakeTriton, RunningGateway]) -> FakeTriton:
    return running[0]


@pytest.fixture
def gateway(running: tuple[FakeTriton, RunningGateway]) -> RunningGateway:
    return running[1]


async def chat(gateway: RunningGateway, content: Any, prefix: str = "/v1", **fields: Any) -> httpx.Response:
    body = {"model": "film", "messages": [{"role": "user", "content": content}], **fields}
    return await gateway.http.post(f"{prefix}/chat/completions", json=body, headers=KEY)


@for_each_dialect
async def test_the_answer_is_a_link_to_a_video(
    gateway: RunningGateway, filming: FakeTriton, dialect: WireDialect
) -> None:
    response = await chat(gateway, "a red circle", dialect.prefix, seed=3)
    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    link = LINK.fullmatch(choice["message"]["content"])
    assert link and choice["finish_reason"] == "stop"
    assert filming.calls[-1].tensors["seed"] == [3] and filming.calls[-1].prompt == "a red circle"
    file = await gateway.http.get(link[1])  # the address is signed: no key is needed
    assert file.headers["content-type"] == "video/mp4" and len(frames(file.content)) == 17


async def test_a_stream_shows_progress(gateway: RunningGateway) -> None:
    chunks = events(await chat(gateway, "a red circle", stream=True))
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks[:-1])
    lines = text.split("\n")
    assert lines[:2] == ["> Progress: 50.0%", "> Progress: 100.0%"] and LINK.fullmatch(lines[-1])
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"


async def test_an_image_becomes_the_first_frame(gateway: RunningGateway, filming: FakeTriton) -> None:
    picture = encoded_image(size=(128, 64), colour=(10, 200, 10))
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    image = {"type": "image_url", "image_url": {"url": url}}
    assert (await chat(gateway, [{"type": "text", "text": "it moves"}, image])).status_code == 200
    with Image.open(io.BytesIO(filming.calls[-1].tensors["image"][0])) as first:
        assert (first.size, first.getpixel((32, 32))) == ((64, 64), (10, 200, 10))
    two = await chat(gateway, [{"type": "text", "text": "it moves"}, image, image])
    check_error(two, 400, param="messages[0]")
    refused = await chat(gateway, [{"type": "text", "text": "it moves"}, image], model="film-text-only")
    assert refused.status_code == 400


async def test_chats_that_are_refused(gateway: RunningGateway) -> None:
    check_error(await chat(gateway, "x", model="film-picture"), 400, param="input_reference")
    check_error(await chat(gateway, "x", n=2), 400, param="n")
    check_error(await chat(gateway, "x", logprobs=True), 400, param="logprobs")
    check_error(await chat(gateway, " "), 400, param="messages[0]")
    check_error(await chat(gateway, "x" * 40_000), 400, param="messages[0]")
    check_error(await chat(gateway, "x", model="film-broken"), 502, "server_error", code="model_failed")
