"""Images of the platform dialect: the document's examples, at once and as tasks."""

import asyncio
import base64
import io
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from PIL import Image

from gateway.dialects.platform import response_models
from tests.fakes.scripted_model import DrawImages, Fail, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.conformance import validate_exactly
from tests.wire.openai.test_message_parts import encoded_image
from tests.wire.openai.text_requests import check_error
from tests.wire.platform.chat_requests import DOCUMENT_HEADERS, MODEL

pytestmark = pytest.mark.asyncio(loop_scope="session")

GENERATIONS, EDITS = "/tritonic/v1/images/generations", "/tritonic/v1/images/edits"
PROMPT = "<图片描述>"
DRAWING = [
    ScriptedModel("shapes", (DrawImages(2),), is_image_model=True),
    ScriptedModel("slow", (DrawImages(40, pause=0.05),), is_image_model=True),
    ScriptedModel("broken", (Fail("[engine_failed] The engine stopped."),), is_image_model=True),
    ScriptedModel("hello"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def studio() -> AsyncIterator[FakeTriton]:
    triton = await FakeTriton(DRAWING).start()
    yield triton
    await triton.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def drawn(studio: FakeTriton, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    """A gateway with the document's placeholder as an alias of a model, and three platforms with their own keys."""
    platforms = {"tritonic": {}, "one": {"keys": ["sk-a", "sk-b"]}, "other": {"keys": ["sk-a"]}}
    state: Path = tmp_path_factory.mktemp("state")
    async with run_gateway(studio.url, model_aliases={MODEL: "shapes"}, platforms=platforms, state=state) as gateway:
        await tasks_are_kept(gateway)
        yield gateway


async def tasks_are_kept(gateway: RunningGateway) -> None:
    """The first task creates the database. On a busy machine, that takes longer than requests wait."""
    body = {"prompt": "the first", "model": "shapes", "async": True}
    async with asyncio.timeout(90):
        while (response := await gateway.http.post(GENERATIONS, json=body)).status_code == 503:
            assert response.headers["retry-after"]
    assert response.status_code == 200, response.text


def size(data_url: str) -> tuple[int, int]:
    head, _, data = data_url.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))).size


async def ask(gateway: RunningGateway, path: str, body: dict[str, Any]) -> Any:
    content = json.dumps(body, ensure_ascii=False)
    return ok(await gateway.http.post(path, content=content, headers=DOCUMENT_HEADERS))


def ok(response: httpx.Response, shape: type = response_models.Images) -> Any:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    validate_exactly(shape, response.content)
    return response.json()


async def finished(gateway: RunningGateway, url: str, **headers: str) -> Any:
    """Wait until a task has ended, and return its details."""
    async with asyncio.timeout(60):
        while True:
            task = ok(await gateway.http.get(f"{url}?detail=true", headers=headers), response_models.ImageTask)
            if task["status"] not in ("queued", "in_progress"):
                return task
            await asyncio.sleep(0.05)


async def test_a_generation_as_json(drawn: RunningGateway, studio: FakeTriton) -> None:
    answer = await ask(drawn, GENERATIONS, {"prompt": PROMPT, "model": MODEL})
    assert set(answer) == {"created", "data"} and type(answer["created"]) is int
    (only,) = answer["data"]
    assert set(only) == {"b64_json"} and size(only["b64_json"]) == (128, 128)
    assert studio.calls[-1].prompt == PROMPT


async def test_a_generation_as_a_form(drawn: RunningGateway) -> None:
    fields = {"prompt": (None, PROMPT), "model": (None, MODEL), "n": (None, "2"), "async": (None, "false")}
    answer = ok(await drawn.http.post(GENERATIONS, files=fields))
    assert [size(each["b64_json"]) for each in answer["data"]] == [(128, 128)] * 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("path", [GENERATIONS, EDITS])
async def test_forms_as_the_document_prints_them(drawn: RunningGateway, tmp_path: Path, path: str) -> None:
    """The document's header has no boundary; curl adds it."""
    file = tmp_path / "example1.jpg"
    file.write_bytes(encoded_image("JPEG"))
    command = ["curl", "--noproxy", "*", "-s", "-X", "POST", f"{drawn.url}{path}"]
    command += ["--header", "Authorization: Bearer <你的许可证>", "--header", "Content-Type: multipart/form-data"]
    command += ["--form", f'image[]=@"{file}"'] if path == EDITS else []
    command += ["--form", f'prompt="{PROMPT}"', "--form", f'model="{MODEL}"']
    curl = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await curl.communicate()
    (only,) = validate_exactly(response_models.Images, out).data
    assert size(only.b64_json) == (128, 128)


async def test_a_url(drawn: RunningGateway) -> None:
    answer = await ask(drawn, GENERATIONS, {"prompt": PROMPT, "model": MODEL, "response_format": "url"})
    (only,) = answer["data"]
    assert set(only) == {"url"} and only["url"].startswith(drawn.url)
    file = await drawn.http.get(only["url"])
    assert (file.status_code, file.headers["content-type"]) == (200, "image/png")


@pytest.mark.parametrize("form", ["base64", "data URL"])
async def test_an_edit_as_json(drawn: RunningGateway, studio: FakeTriton, form: str) -> None:
    image = base64.b64encode(encoded_image()).decode()
    image = image if form == "base64" else f"data:image/png;base64,{image}"
    answer = await ask(drawn, EDITS, {"image": image, "prompt": PROMPT, "model": MODEL})
    assert size(answer["data"][0]["b64_json"]) == (128, 128)
    assert studio.calls[-1].tensors["image"] == [encoded_image()]


async def test_an_edit_as_a_form(drawn: RunningGateway, studio: FakeTriton) -> None:
    """The document's example has two images; the model decides whether it accepts a second one."""
    files = [("image[]", ("example1.jpg", encoded_image("JPEG")))]
    answer = ok(await drawn.http.post(EDITS, files=files, data={"prompt": PROMPT, "model": MODEL}))
    assert answer["data"] and studio.calls[-1].tensors["image"] == [encoded_image("JPEG")]
    files.append(("image[]", ("example2.jpg", encoded_image("JPEG"))))
    response = await drawn.http.post(EDITS, files=files, data={"prompt": PROMPT, "model": MODEL})
    check_error(response, 400, code="unsupported_parameter", param="image")
    assert len(studio.calls[-1].tensors["image"]) == 2


@pytest.mark.parametrize("where", ["query", "body", "form"])
async def test_a_generation_later(drawn: RunningGateway, where: str) -> None:
    body = {"prompt": PROMPT, "model": MODEL, "n": 2}
    match where:
        case "query":
            response = await drawn.http.post(f"{GENERATIONS}?async=true", json=body)
        case "body":
            response = await drawn.http.post(GENERATIONS, json=body | {"async": True})
        case _:
            fields = {"prompt": (None, PROMPT), "model": (None, MODEL), "n": (None, "2"), "async": (None, "true")}
            response = await drawn.http.post(GENERATIONS, files=fields)
    task = ok(response, response_models.ImageTask)
    assert set(task) == {"id", "object", "model", "status", "created_at"}
    assert (task["object"], task["model"]) == ("image", "shapes") and task["status"] in ("queued", "in_progress")
    ended = await finished(drawn, f"/tritonic/v1/images/{task['id']}")
    assert (ended["status"], ended["detail"]["progress"], ended["detail"]["error"]) == ("completed", 100, None)
    assert ended["detail"]["request"]["prompt"] == PROMPT
    assert len(ended["detail"]["data"]) == 2
    for image in ended["detail"]["data"]:
        assert (await drawn.http.get(image["url"])).headers["content-type"] == "image/png"
    plain = ok(await drawn.http.get(f"/tritonic/v1/images/{task['id']}"), response_models.ImageTask)
    assert plain == {**task, "status": "completed"}


async def test_an_edit_later(drawn: RunningGateway, studio: FakeTriton) -> None:
    body = {"image": base64.b64encode(encoded_image()).decode(), "prompt": PROMPT, "model": MODEL}
    task = ok(await drawn.http.post(f"{EDITS}?async=true", json=body), response_models.ImageTask)
    ended = await finished(drawn, f"/tritonic/v1/images/{task['id']}")
    assert (ended["status"], ended["detail"]["operation"]) == ("completed", "edit_image")
    assert studio.calls[-1].tensors["image"] == [encoded_image()]


async def test_a_task_that_fails(drawn: RunningGateway) -> None:
    body = {"prompt": PROMPT, "model": "broken", "async": True}
    task = ok(await drawn.http.post(GENERATIONS, json=body), response_models.ImageTask)
    ended = await finished(drawn, f"/tritonic/v1/images/{task['id']}")
    assert ended["status"] == "failed" and ended["detail"]["data"] == []
    assert ended["detail"]["error"]["code"] == "model_failed"


async def test_a_task_belongs_to_its_key_and_its_platform(drawn: RunningGateway) -> None:
    def bearer(key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}

    body = {"prompt": PROMPT, "model": "slow", "async": True}
    task = ok(
        await drawn.http.post("/one/v1/images/generations", json=body, headers=bearer("sk-a")),
        response_models.ImageTask,
    )
    ok(await drawn.http.get(f"/one/v1/images/{task['id']}", headers=bearer("sk-a")), response_models.ImageTask)
    for platform, key in (("one", "sk-b"), ("other", "sk-a"), ("tritonic", "")):
        response = await drawn.http.get(f"/{platform}/v1/images/{task['id']}", headers=bearer(key) if key else {})
        check_error(response, 404, code="task_not_found")


async def test_the_same_request_again_is_the_same_task(drawn: RunningGateway) -> None:
    body, key = {"prompt": PROMPT, "model": MODEL, "async": True}, {"Idempotency-Key": "order 7"}
    ids = {(await drawn.http.post(GENERATIONS, json=body, headers=key)).json()["id"] for _ in range(3)}
    assert len(ids) == 1
    response = await drawn.http.post(GENERATIONS, json=body | {"prompt": "another"}, headers=key)
    check_error(response, 400, param="idempotency_key")


@pytest.mark.parametrize("id", ["task_1", "task_" + "0" * 32, "generations", "%2e%2e", "x" * 3000, "<任务ID>"])
async def test_tasks_that_there_are_not(drawn: RunningGateway, id: str) -> None:
    check_error(await drawn.http.get(f"/tritonic/v1/images/{id}"), 404, code="task_not_found")


@pytest.mark.parametrize(
    ("path", "change", "param"),
    [
        (GENERATIONS, {"prompt": None}, "prompt"),
        (GENERATIONS, {"prompt": ""}, "prompt"),
        (GENERATIONS, {"prompt": "x" * 100_000}, "prompt"),
        (GENERATIONS, {"model": None}, "model"),
        (GENERATIONS, {"n": 0}, "n"),
        (GENERATIONS, {"n": 11}, "n"),
        (GENERATIONS, {"n": "two"}, "n"),
        (GENERATIONS, {"size": "1024"}, "size"),
        (GENERATIONS, {"size": "1x1"}, "size"),
        (GENERATIONS, {"response_format": "png"}, "response_format"),
        (GENERATIONS, {"async": "yes"}, "async"),
        (GENERATIONS, {"stream": True}, "stream"),
        (GENERATIONS, {"model": "hello"}, "model"),
        (EDITS, {}, "image"),
        (EDITS, {"image": []}, "image"),
        (EDITS, {"image": "no base64!"}, "image"),
        (EDITS, {"image": base64.b64encode(b"just text").decode()}, "image"),
        (EDITS, {"image": "http://127.0.0.1/x.png"}, "image"),
    ],
)
@pytest.mark.parametrize("later", [False, True], ids=["now", "later"])
async def test_bad_input(drawn: RunningGateway, path: str, change: dict[str, Any], param: str, later: bool) -> None:
    """A task with bad input is refused at once, too."""
    body = {"prompt": PROMPT, "model": MODEL, "async": later} | change
    response = await drawn.http.post(path, json=body)
    check_error(response, 400, code=response.json()["error"]["code"], param=param)


async def test_a_query_that_is_no_truth_value(drawn: RunningGateway) -> None:
    body = {"prompt": PROMPT, "model": MODEL}
    check_error(await drawn.http.post(f"{GENERATIONS}?async=perhaps", json=body), 400, param="async")
    check_error(await drawn.http.get("/tritonic/v1/images/task_1?detail=perhaps"), 400, param="detail")


async def test_the_official_client(drawn: RunningGateway) -> None:
    async with drawn.client(base_url=f"{drawn.url}/tritonic/v1") as client:
        answer = await client.images.generate(model="shapes", prompt="a red circle", n=2)
        assert [size(each.b64_json or "") for each in answer.data or ()] == [(128, 128)] * 2
        answer = await client.images.edit(model="shapes", prompt="a star", image=encoded_image(), response_format="url")
        assert answer.data and answer.data[0].url
        with pytest.raises(openai.NotFoundError):
            await client.images.generate(model="nothing", prompt="a red circle")
        with pytest.raises(openai.BadRequestError):
            await client.images.generate(model="hello", prompt="a red circle")


async def test_a_chat_with_a_model_that_draws(drawn: RunningGateway, studio: FakeTriton) -> None:
    part = {"type": "image_url", "image_url": {"url": base64.b64encode(encoded_image()).decode()}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "a red circle"}, part]}]
    before = len(studio.calls)
    response = await drawn.http.post("/tritonic/v1/chat/completions", json={"model": "shapes", "messages": messages})
    content = ok(response, response_models.ChatAnswer)["choices"][0]["message"]["content"]
    assert content.startswith("![image](")
    # A task of an earlier test may run at the same time; none of them begins with an image.
    edits = [call.tensors["image"] for call in studio.calls[before:] if "image" in call.tensors]
    assert edits == [[encoded_image()]]
