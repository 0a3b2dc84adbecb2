"""POST /v1/images/upscales and its platform route, on scripted models: bodies, limits, answers, tasks and failures."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gateway.dialects.openai.upscales import UpscaleResponse
from gateway.dialects.platform import response_models
from tests.fakes.scripted_model import EnlargePicture, Fail, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.conformance import validate_exactly
from tests.wire.openai.image_requests import decode_images, encoded_image, open_image
from tests.wire.openai.text_requests import check_error

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH, PLATFORM_PATH = "/v1/images/upscales", "/tritonic/v1/images/upscales"
PICTURE = encoded_image((40, 30))
MODELS = [
    ScriptedModel("larger", (EnlargePicture(),), is_upscaling_model=True),
    ScriptedModel("only-4", (EnlargePicture(),), is_upscaling_model=True, parameters={"scales": "[4]"}),
    ScriptedModel("slow", (EnlargePicture(200, pause=0.05),), is_upscaling_model=True),
    ScriptedModel("noise", (EnlargePicture(is_garbled=True),), is_upscaling_model=True),
    ScriptedModel("missing", (EnlargePicture(num_pictures=0),), is_upscaling_model=True),
    ScriptedModel("twice", (EnlargePicture(num_pictures=2),), is_upscaling_model=True),
    ScriptedModel("refuses", (Fail("[invalid_value:quality] It is wrong."),), is_upscaling_model=True),
    ScriptedModel("hello"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def triton() -> AsyncIterator[FakeTriton]:
    triton = await FakeTriton(MODELS).start()
    yield triton
    await triton.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(triton: FakeTriton, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    state = tmp_path_factory.mktemp("state")
    async with run_gateway(triton.url, platforms={"tritonic": {}}, state=state) as running:
        yield running


def body(image: bytes = PICTURE, **fields: Any) -> dict[str, Any]:
    return {"model": "larger", "image": base64.b64encode(image).decode(), **fields}


async def test_a_body_in_json(gateway: RunningGateway, triton: FakeTriton) -> None:
    fields: dict[str, Any] = {
        "scale": 4,
        "output_format": "webp",
        "output_compression": 70,
        "response_format": "b64_json",
    }
    response = await gateway.http.post(PATH, json=body(**fields))
    (picture,) = decode_images(response)
    assert (picture.size, picture.format) == ((160, 120), "WEBP")
    validate_exactly(UpscaleResponse, response.content)
    answer = response.json()
    assert (answer["size"], answer["output_format"], answer["code"]) == ("160x120", "webp", 0)
    tensors = triton.calls[-1].tensors
    assert {name: list(values) for name, values in tensors.items()} == {
        "image": [PICTURE], "scale": [4], "output_format": [b"webp"], "quality": [70],
    }  # fmt: skip


async def test_a_form_and_an_answer_with_a_url(gateway: RunningGateway, triton: FakeTriton) -> None:
    """The model may be left out: the first that upscales answers. The scale is 2."""
    response = await gateway.http.post(PATH, data={"scale": "2", "model": "larger"}, files={"image": PICTURE})
    assert response.status_code == 200, response.text
    url = response.json()["data"][0]["url"]
    stored = await gateway.http.get(url)
    assert stored.headers["content-type"] == "image/png" and open_image(stored.content).size == (80, 60)
    again = await gateway.http.post(PATH, json={"image": url, "response_format": "b64_json"})
    assert decode_images(again)[0].size == (160, 120)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"image": None}, "image", "required"),
        ({"image": []}, "image", "at least one"),
        ({"image": [base64.b64encode(PICTURE).decode()] * 2}, "image", "one image"),
        ({"image": base64.b64encode(b"no picture").decode()}, "image", ""),
        ({"image": {"file_id": "file-1"}}, "image.file_id", "does not store"),
        ({"scale": 1}, "scale", "2"),
        ({"scale": 3}, "scale", "2 or 4"),
        ({"scale": 10**9}, "scale", "16"),
        ({"scale": "two"}, "scale", "integer"),
        ({"scale": 2, "model": "only-4"}, "scale", "by 4"),
        ({"output_format": "gif"}, "output_format", "png"),
        ({"output_compression": 50}, "output_compression", "lossless"),
        ({"model": "hello"}, "model", "cannot upscale images"),
        ({"image": base64.b64encode(encoded_image((201, 100))).decode()}, "image", "201 x 100"),
        ({"image": base64.b64encode(encoded_image((100, 51))).decode(), "scale": 4}, "image", "at most 5000"),
        ({"model": "refuses"}, "output_compression", "wrong"),
    ],
)
@pytest.mark.parametrize("path", [PATH, PLATFORM_PATH])
async def test_refusals_name_the_field(
    gateway: RunningGateway, path: str, fields: dict, param: str, words: str
) -> None:
    message = check_error(await gateway.http.post(path, json=body() | fields), 400, param=param)
    assert words in message, message


@pytest.mark.parametrize("model", ["noise", "missing", "twice"])
async def test_a_model_that_breaks_the_contract(gateway: RunningGateway, model: str) -> None:
    check_error(await gateway.http.post(PATH, json=body(model=model)), 502, "server_error", "model_failed")


async def test_a_task_of_a_platform(gateway: RunningGateway) -> None:
    async with asyncio.timeout(90):  # the first task creates the database
        while (queued := await gateway.http.post(PLATFORM_PATH, json=body() | {"async": True})).status_code == 503:
            await asyncio.sleep(0.2)
        assert queued.status_code == 200, queued.text
        task = queued.json()
        while task["status"] not in ("completed", "failed"):
            await asyncio.sleep(0.05)
            found = await gateway.http.get(f"/tritonic/v1/images/{task['id']}", params={"detail": "true"})
            task = found.json()
    validate_exactly(response_models.ImageTask, found.content)
    assert (task["object"], task["detail"]["operation"], task["detail"]["progress"]) == ("image", "upscale_image", 100)
    assert task["detail"]["request"] == {"scale": 2, "output_format": "png"}
    stored = await gateway.http.get(task["detail"]["data"][0]["url"])
    assert open_image(stored.content).size == (80, 60)
    listed = (await gateway.http.get("/tritonic/v1/images")).json()["data"]
    assert [each["id"] for each in listed] == [task["id"]]


async def test_at_once_on_a_platform(gateway: RunningGateway) -> None:
    response = await gateway.http.post(PLATFORM_PATH, json=body())
    validate_exactly(response_models.Images, response.content)
    data = response.json()["data"][0]["b64_json"].removeprefix("data:image/png;base64,")
    assert open_image(base64.b64decode(data)).size == (80, 60)
    url = (await gateway.http.post(PLATFORM_PATH, json=body(response_format="url"))).json()["data"][0]["url"]
    assert (await gateway.http.get(url)).status_code == 200


async def test_a_disconnect_cancels_the_model(gateway: RunningGateway, triton: FakeTriton) -> None:
    before = len(triton.calls)
    request = asyncio.create_task(gateway.http.post(PATH, content=json.dumps(body(model="slow"))))
    async with asyncio.timeout(20):
        while len(triton.calls) == before:
            await asyncio.sleep(0.01)
        request.cancel()
        await triton.calls[-1].ended.wait()
    assert triton.calls[-1].cancelled_at is not None
