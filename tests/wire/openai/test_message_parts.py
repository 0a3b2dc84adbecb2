"""Images and files in messages: what the model gets, and what is refused before anything is fetched."""

import base64
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from PIL import Image

from tests.fakes.triton import FakeTriton
from tests.wire.dialects import WireDialect, for_each_dialect
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import chat, check_error

pytestmark = pytest.mark.asyncio(loop_scope="session")


def encoded_image(form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 30, 30)).save(file, form)
    return file.getvalue()


def data_url(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def message(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "Look: "}, *parts]}]


def image(url: str, **fields: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def file(data: str, **fields: str) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": data, **fields}}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site() -> AsyncIterator[str]:
    """A web server with images."""

    async def give(request: web.Request) -> web.Response:
        return web.Response(body=encoded_image("JPEG"), content_type="text/plain")

    async def lead_inside(request: web.Request) -> web.Response:
        raise web.HTTPFound("http://169.254.169.254/latest/meta-data/")

    application = web.Application()
    application.router.add_get("/cat.jpg", give)
    application.router.add_get("/inside", lead_inside)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def private_gateway(triton: FakeTriton) -> AsyncIterator[RunningGateway]:
    """A gateway that may fetch from private addresses."""
    async with run_gateway(triton.url, media_allowed_hosts=["127.0.0.1"]) as gateway:
        yield gateway


async def test_images_reach_a_vision_model(private_gateway: RunningGateway, triton: FakeTriton, site: str) -> None:
    parts = [image(data_url(encoded_image(), "image/png"), detail="low"), image(f"{site}/cat.jpg")]
    response = await chat(private_gateway, "sighted", messages=message(*parts))
    assert response.json()["choices"][0]["message"]["content"] == "A cat."
    call = triton.calls[-1]
    assert call.prompt == "Look: <image><image>"
    assert [base64.b64decode(data) for data in call.tensors["image"]] == [encoded_image(), encoded_image("JPEG")]


async def test_a_url_may_stand_for_the_object_that_holds_it(gateway: RunningGateway, triton: FakeTriton) -> None:
    part = {"type": "image_url", "image_url": data_url(encoded_image("WEBP"), "image/webp")}
    assert (await chat(gateway, "sighted", messages=message(part))).status_code == 200
    assert len(triton.calls[-1].tensors["image"]) == 1


@pytest.mark.parametrize(
    "part",
    [
        image("?"),
        image("http://10.0.0.1"),
        image("http://127.0.0.1:1/x.png"),
        image("http://localhost/x.png"),
        image("http://2130706433/x.png"),
        image("http://[::ffff:10.0.0.1]/x.png"),
        image("ftp://example.com/x.png"),
        image("file:///etc/passwd"),
        image("data:image/png;base64,AAAA"),
        image(data_url(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml")),
        image(data_url(encoded_image()[:40], "image/png")),
        image(""),
    ],
    ids=lambda part: part["image_url"]["url"][:40],
)
@for_each_dialect
async def test_invalid_image_references_are_refused(
    gateway: RunningGateway, dialect: WireDialect, part: dict[str, Any]
) -> None:
    response = await gateway.http.post(dialect.chat.path, json=dialect.chat.body("sighted", messages=message(part)))
    check_error(response, 400, param="messages[0].content[1].image_url")


async def test_redirects_to_private_addresses_are_refused(private_gateway: RunningGateway, site: str) -> None:
    response = await chat(private_gateway, "sighted", messages=message(image(f"{site}/inside")))
    check_error(response, 400, param="messages[0].content[1].image_url")


async def test_the_text_of_a_file_reaches_the_prompt(gateway: RunningGateway, triton: FakeTriton) -> None:
    table = base64.b64encode(b"name,age\nAnn,7\n").decode()
    response = await chat(gateway, messages=message(file(table, filename='a "table".csv')))
    assert response.status_code == 200, response.text
    prompt = triton.calls[-1].prompt
    assert "<file name=\"a 'table'.csv\">\n" in prompt and "Ann" in prompt and prompt.count("</file>") == 1


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "file", "file": {}}, "messages[0].content[1].file.file_data"),
        ({"type": "file"}, "messages[0].content[1].file"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "messages[0].content[1].file.file_id"),
        (file("%%%"), "messages[0].content[1].file.file_data"),
        (file(data_url(b"%PDF-1.7 nothing", "application/pdf")), "messages[0].content[1].file.file_data"),
        ({"type": "image_url"}, "messages[0].content[1].image_url"),
        ({"type": "image_url", "image_url": {}}, "messages[0].content[1].image_url.url"),
        (image("data:,x", detail="huge"), "messages[0].content[1].image_url.detail"),
    ],
)
@for_each_dialect
async def test_incomplete_parts_are_refused_by_place(
    gateway: RunningGateway, dialect: WireDialect, part: dict[str, Any], param: str
) -> None:
    response = await gateway.http.post(dialect.chat.path, json=dialect.chat.body("sighted", messages=message(part)))
    check_error(response, 400, code=response.json()["error"]["code"], param=param)


async def test_the_number_of_images_is_limited(gateway: RunningGateway) -> None:
    parts = [image(data_url(encoded_image(), "image/png"))] * 65
    check_error(await chat(gateway, "sighted", messages=message(*parts)), 400, param="messages")
