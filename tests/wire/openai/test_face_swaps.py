"""POST /v1/images/face-swaps and its platform route, on scripted models: bodies, answers, tasks and failures."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gateway.dialects.openai.face_swaps import FaceSwapResponse
from gateway.dialects.platform import response_models
from tests.fakes.face_swap_model import FaceSwapModel, FaceSwapTriton
from tests.fakes.scripted_model import ScriptedModel
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.conformance import validate_exactly
from tests.wire.openai.image_requests import decode_images, encoded_image, open_image
from tests.wire.openai.text_requests import check_error

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH, PLATFORM_PATH = "/v1/images/face-swaps", "/tritonic/v1/images/face-swaps"
SOURCE, TARGET = encoded_image((30, 20)), encoded_image((40, 30), colour=90)
MODELS = [
    FaceSwapModel("faces"),
    FaceSwapModel("slow", steps=200, pause=0.05),
    FaceSwapModel("missing", num_images=0),
    FaceSwapModel("twice", num_images=2),
    FaceSwapModel("uncounted", num_faces=0),
    FaceSwapModel("faceless", failure="[invalid_value:target] No face was found in the picture 'target'."),
    FaceSwapModel("refuses", failure="[invalid_value:quality] It is wrong."),
    ScriptedModel("hello"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def triton() -> AsyncIterator[FaceSwapTriton]:
    triton = await FaceSwapTriton(MODELS).start()
    yield triton
    await triton.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(triton: FaceSwapTriton, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    state = tmp_path_factory.mktemp("state")
    async with run_gateway(triton.url, platforms={"tritonic": {}}, state=state) as running:
        yield running


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "faces", "source": base64_of(SOURCE), "target": base64_of(TARGET), **fields}


async def test_a_body_in_json(gateway: RunningGateway, triton: FaceSwapTriton) -> None:
    fields = {"output_format": "webp", "output_compression": 70, "response_format": "b64_json"}
    response = await gateway.http.post(PATH, json=body(**fields))
    (picture,) = decode_images(response)
    assert (picture.size, picture.format) == ((40, 30), "WEBP")
    validate_exactly(FaceSwapResponse, response.content)
    answer = response.json()
    assert (answer["size"], answer["num_faces"], answer["output_format"], answer["code"]) == ("40x30", 3, "webp", 0)
    tensors = triton.calls[-1].tensors
    assert {name: list(values) for name, values in tensors.items()} == {
        "source": [SOURCE], "target": [TARGET], "output_format": [b"webp"], "quality": [70],
    }  # fmt: skip


async def test_a_form_and_an_answer_with_a_url(gateway: RunningGateway, triton: FaceSwapTriton) -> None:
    """The model may be left out: the first by name that swaps faces answers, which here finds no face."""
    files = {"source": SOURCE, "target": TARGET}
    response = await gateway.http.post(PATH, data={"model": "faces", "output_compression": ""}, files=files)
    assert response.status_code == 200, response.text
    assert list(triton.calls[-1].tensors["source"]) == [SOURCE]
    url = response.json()["data"][0]["url"]
    stored = await gateway.http.get(url)
    assert stored.headers["content-type"] == "image/png" and open_image(stored.content).size == (40, 30)
    again = await gateway.http.post(PATH, json=body(target={"image_url": url}, response_format="b64_json"))
    assert decode_images(again)[0].size == (40, 30)
    message = check_error(await gateway.http.post(PATH, files=files), 400, param="target")
    assert message == "No face was found in the picture 'target'."


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"source": None}, "source", "required"),
        ({"target": ""}, "target", "required"),
        ({"target": []}, "target", "at least one"),
        ({"source": [base64_of(SOURCE)] * 2}, "source", "one image"),
        ({"source": base64_of(b"no picture")}, "source", ""),
        ({"target": base64_of(TARGET[:60])}, "target", ""),
        ({"target": {"file_id": "file-1"}}, "target.file_id", "does not store"),
        ({"source": 7}, "source", "URL"),
        ({"output_format": "gif"}, "output_format", "png"),
        ({"output_compression": 50}, "output_compression", "lossless"),
        ({"model": "hello"}, "model", "cannot swap faces"),
        ({"model": "faceless"}, "target", "No face"),
        ({"model": "refuses"}, "output_compression", "wrong"),
    ],
)
@pytest.mark.parametrize("path", [PATH, PLATFORM_PATH])
async def test_refusals_name_the_field(
    gateway: RunningGateway, path: str, fields: dict, param: str, words: str
) -> None:
    message = check_error(await gateway.http.post(path, json=body() | fields), 400, param=param)
    assert words in message, message


@pytest.mark.parametrize("model", ["missing", "twice", "uncounted"])
async def test_a_model_that_breaks_the_contract(gateway: RunningGateway, model: str) -> None:
    check_error(await gateway.http.post(PATH, json=body(model=model)), 502, "server_error", "model_failed")


async def test_tasks_of_a_platform(gateway: RunningGateway) -> None:
    ended = {}
    for model in ("faces", "faceless"):
        sent = body(model=model, **{"async": True})
        async with asyncio.timeout(90):  # the first task creates the database
            while (queued := await gateway.http.post(PLATFORM_PATH, json=sent)).status_code == 503:
                await asyncio.sleep(0.2)
            assert queued.status_code == 200, queued.text
            task = queued.json()
            while task["status"] not in ("completed", "failed"):
                await asyncio.sleep(0.05)
                found = await gateway.http.get(f"/tritonic/v1/images/{task['id']}", params={"detail": "true"})
                task = found.json()
        validate_exactly(response_models.ImageTask, found.content)
        ended[model] = task
    done, failed = ended["faces"], ended["faceless"]
    assert (done["object"], done["detail"]["operation"], done["detail"]["progress"]) == ("image", "swap_face", 100)
    assert done["detail"]["request"] == {"output_format": "png"}
    stored = await gateway.http.get(done["detail"]["data"][0]["url"])
    assert open_image(stored.content).size == (40, 30)
    assert failed["status"] == "failed" and failed["detail"]["error"]["param"] == "target"
    listed = (await gateway.http.get("/tritonic/v1/images")).json()["data"]
    assert {each["id"] for each in listed} == {done["id"], failed["id"]}


async def test_at_once_on_a_platform(gateway: RunningGateway) -> None:
    response = await gateway.http.post(PLATFORM_PATH, json=body())
    validate_exactly(response_models.Images, response.content)
    data = response.json()["data"][0]["b64_json"].removeprefix("data:image/png;base64,")
    assert open_image(base64.b64decode(data)).size == (40, 30)
    url = (await gateway.http.post(PLATFORM_PATH, json=body(response_format="url"))).json()["data"][0]["url"]
    assert (await gateway.http.get(url)).status_code == 200
    refused = await gateway.http.post(PLATFORM_PATH, json=body(webhook_url="https://example.com"))
    check_error(refused, 400, param="webhook_url")


async def test_a_disconnect_cancels_the_model(gateway: RunningGateway, triton: FaceSwapTriton) -> None:
    before = len(triton.calls)
    request = asyncio.create_task(gateway.http.post(PATH, content=json.dumps(body(model="slow"))))
    async with asyncio.timeout(20):
        while len(triton.calls) == before:
            await asyncio.sleep(0.01)
        request.cancel()
        await triton.calls[-1].ended.wait()
    assert triton.calls[-1].cancelled_at is not None
