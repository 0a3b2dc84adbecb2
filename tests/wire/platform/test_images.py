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
import pytest
import pytest_asyncio
from PIL import Image

from gateway.dialects.platform import response_models
from tests.fakes.scripted_model import DrawImages, Fail, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.fakes.webhook_receiver import WebhookReceiver
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
async def triton() -> AsyncIterator[FakeTriton]:
    triton = await FakeTriton(DRAWING).start()
    yield triton
    await triton.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(triton: FakeTriton, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    """A gateway with the document's placeholder as an alias of a model, and three platforms with their own keys."""
    platforms = {"tritonic": {}, "one": {"keys": ["sk-a", "sk-b"]}, "other": {"keys": ["sk-a"]}}
    state: Path = tmp_path_factory.mktemp("state")
    async with run_gateway(
        triton.url,
        model_aliases={MODEL: "shapes"},
        platforms=platforms,
        state=state,
        webhook_allowed_hosts=["127.0.0.1"],
    ) as running:
        await wait_for_database(running)
        yield running


async def wait_for_database(gateway: RunningGateway) -> None:
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


async def post_json(gateway: RunningGateway, path: str, body: dict[str, Any]) -> Any:
    content = json.dumps(body, ensure_ascii=False)
    return parse_answer(await gateway.http.post(path, content=content, headers=DOCUMENT_HEADERS))


def parse_answer(response: httpx.Response, model: type = response_models.Images) -> Any:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    validate_exactly(model, response.content)
    return response.json()


async def wait_for_end(gateway: RunningGateway, url: str, **headers: str) -> Any:
    """Wait until a task has ended, and return its details."""
    async with asyncio.timeout(60):
        while True:
            task = parse_answer(
                await gateway.http.get(f"{url}?detail=true", headers=headers), response_models.ImageTask
            )
            if task["status"] not in ("queued", "in_progress"):
                return task
            await asyncio.sleep(0.05)


async def test_a_generation_request_as_json(gateway: RunningGateway, triton: FakeTriton) -> None:
    answer = await post_json(gateway, GENERATIONS, {"prompt": PROMPT, "model": MODEL})
    assert set(answer) == {"created", "data"} and type(answer["created"]) is int
    (image,) = answer["data"]
    assert set(image) == {"b64_json"} and size(image["b64_json"]) == (128, 128)
    assert triton.calls[-1].prompt == PROMPT


async def test_a_generation_request_as_a_form(gateway: RunningGateway) -> None:
    fields = {"prompt": (None, PROMPT), "model": (None, MODEL), "n": (None, "2"), "async": (None, "false")}
    answer = parse_answer(await gateway.http.post(GENERATIONS, files=fields))
    assert [size(each["b64_json"]) for each in answer["data"]] == [(128, 128)] * 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("path", [GENERATIONS, EDITS])
async def test_forms_as_in_the_document(gateway: RunningGateway, tmp_path: Path, path: str) -> None:
    """The document's header has no boundary; curl adds it."""
    file = tmp_path / "example1.jpg"
    file.write_bytes(encoded_image("JPEG"))
    command = ["curl", "--noproxy", "*", "-s", "-X", "POST", f"{gateway.url}{path}"]
    command += ["--header", "Authorization: Bearer <你的许可证>", "--header", "Content-Type: multipart/form-data"]
    command += ["--form", f'image[]=@"{file}"'] if path == EDITS else []
    command += ["--form", f'prompt="{PROMPT}"', "--form", f'model="{MODEL}"']
    curl = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await curl.communicate()
    (image,) = validate_exactly(response_models.Images, out).data
    assert size(image.b64_json) == (128, 128)


@pytest.mark.parametrize("where", ["query", "body", "form"])
async def test_a_generation_task_completes(gateway: RunningGateway, where: str) -> None:
    body = {"prompt": PROMPT, "model": MODEL, "n": 2}
    match where:
        case "query":
            response = await gateway.http.post(f"{GENERATIONS}?async=true", json=body)
        case "body":
            response = await gateway.http.post(GENERATIONS, json=body | {"async": True})
        case _:
            fields = {"prompt": (None, PROMPT), "model": (None, MODEL), "n": (None, "2"), "async": (None, "true")}
            response = await gateway.http.post(GENERATIONS, files=fields)
    task = parse_answer(response, response_models.ImageTask)
    assert set(task) == {"id", "object", "model", "status", "created_at"}
    assert (task["object"], task["model"]) == ("image", "shapes") and task["status"] in ("queued", "in_progress")
    ended = await wait_for_end(gateway, f"/tritonic/v1/images/{task['id']}")
    assert (ended["status"], ended["detail"]["progress"], ended["detail"]["error"]) == ("completed", 100, None)
    assert ended["detail"]["request"]["prompt"] == PROMPT
    assert len(ended["detail"]["data"]) == 2
    for image in ended["detail"]["data"]:
        assert (await gateway.http.get(image["url"])).headers["content-type"] == "image/png"
    plain = parse_answer(await gateway.http.get(f"/tritonic/v1/images/{task['id']}"), response_models.ImageTask)
    assert plain == {**task, "status": "completed"}


async def test_an_edit_task_completes(gateway: RunningGateway, triton: FakeTriton) -> None:
    body = {"image": base64.b64encode(encoded_image()).decode(), "prompt": PROMPT, "model": MODEL}
    task = parse_answer(await gateway.http.post(f"{EDITS}?async=true", json=body), response_models.ImageTask)
    ended = await wait_for_end(gateway, f"/tritonic/v1/images/{task['id']}")
    assert (ended["status"], ended["detail"]["operation"]) == ("completed", "edit_image")
    assert triton.calls[-1].tensors["image"] == [encoded_image()]


async def test_a_failed_task_has_an_error(gateway: RunningGateway) -> None:
    body = {"prompt": PROMPT, "model": "broken", "async": True}
    task = parse_answer(await gateway.http.post(GENERATIONS, json=body), response_models.ImageTask)
    ended = await wait_for_end(gateway, f"/tritonic/v1/images/{task['id']}")
    assert ended["status"] == "failed" and ended["detail"]["data"] == []
    assert ended["detail"]["error"]["code"] == "model_failed"


async def test_a_task_is_visible_only_to_its_key_on_its_platform(gateway: RunningGateway) -> None:
    def bearer(key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}

    body = {"prompt": PROMPT, "model": "slow", "async": True}
    task = parse_answer(
        await gateway.http.post("/one/v1/images/generations", json=body, headers=bearer("sk-a")),
        response_models.ImageTask,
    )
    parse_answer(
        await gateway.http.get(f"/one/v1/images/{task['id']}", headers=bearer("sk-a")), response_models.ImageTask
    )
    for platform, key in (("one", "sk-b"), ("other", "sk-a"), ("tritonic", "")):
        response = await gateway.http.get(f"/{platform}/v1/images/{task['id']}", headers=bearer(key) if key else {})
        check_error(response, 404, code="task_not_found")


async def test_an_idempotency_key_returns_the_same_task(gateway: RunningGateway) -> None:
    body, key = {"prompt": PROMPT, "model": MODEL, "async": True}, {"Idempotency-Key": "order 7"}
    ids = {(await gateway.http.post(GENERATIONS, json=body, headers=key)).json()["id"] for _ in range(3)}
    assert len(ids) == 1
    response = await gateway.http.post(GENERATIONS, json=body | {"prompt": "another"}, headers=key)
    check_error(response, 400, param="idempotency_key")


@pytest.mark.parametrize("id", ["task_1", "task_" + "0" * 32, "generations", "%2e%2e", "x" * 3000, "<任务ID>"])
async def test_unknown_task_ids_are_not_found(gateway: RunningGateway, id: str) -> None:
    check_error(await gateway.http.get(f"/tritonic/v1/images/{id}"), 404, code="task_not_found")


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
async def test_a_task_with_invalid_input_is_refused_when_it_is_created(
    gateway: RunningGateway, path: str, change: dict[str, Any], param: str
) -> None:
    body = {"prompt": PROMPT, "model": MODEL, "async": True} | change
    response = await gateway.http.post(path, json=body)
    check_error(response, 400, code=response.json()["error"]["code"], param=param)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"model": None}, "model"),
        ({"async": "yes"}, "async"),
        ({"stream": True}, "stream"),
    ],
)
async def test_invalid_fields_of_this_dialect_are_named(
    gateway: RunningGateway, change: dict[str, Any], param: str
) -> None:
    body = {"prompt": PROMPT, "model": MODEL, "async": False} | change
    response = await gateway.http.post(GENERATIONS, json=body)
    check_error(response, 400, code=response.json()["error"]["code"], param=param)


async def test_invalid_booleans_of_a_query_are_named(gateway: RunningGateway) -> None:
    body = {"prompt": PROMPT, "model": MODEL}
    check_error(await gateway.http.post(f"{GENERATIONS}?async=perhaps", json=body), 400, param="async")
    check_error(await gateway.http.get("/tritonic/v1/images/task_1?detail=perhaps"), 400, param="detail")


async def test_a_chat_edits_an_image_in_base64(gateway: RunningGateway, triton: FakeTriton) -> None:
    part = {"type": "image_url", "image_url": {"url": base64.b64encode(encoded_image()).decode()}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "a red circle"}, part]}]
    before = len(triton.calls)
    response = await gateway.http.post("/tritonic/v1/chat/completions", json={"model": "shapes", "messages": messages})
    content = parse_answer(response, response_models.ChatAnswer)["choices"][0]["message"]["content"]
    assert content.startswith("![image](")
    # A task of an earlier test may run at the same time; none of them begins with an image.
    edits = [call.tensors["image"] for call in triton.calls[before:] if "image" in call.tensors]
    assert edits == [[encoded_image()]]


@pytest.mark.parametrize("path", [GENERATIONS, EDITS])
async def test_a_webhook_is_called_when_the_task_has_ended(gateway: RunningGateway, path: str) -> None:
    receiver = await WebhookReceiver().start()
    fields = {"prompt": PROMPT, "model": MODEL, "webhook_url": receiver.url()}
    files = {"image": ("a.png", encoded_image())}
    response = await gateway.http.post(f"{path}?async=true", data=fields, files=files)
    task = parse_answer(response, response_models.ImageTask)
    (call,) = await receiver.until(1)
    await receiver.stop()
    assert (call.event["type"], call.event["data"]) == ("image.completed", {"id": task["id"]})
    assert "webhook-signature" not in call.headers


async def test_webhooks_that_can_never_be_called_are_refused(gateway: RunningGateway) -> None:
    body = {"prompt": PROMPT, "model": MODEL, "webhook_url": "https://hooks.example/"}
    refused = check_error(await gateway.http.post(GENERATIONS, json=body), 400, param="webhook_url")
    assert "requires 'async'" in refused
    for url in ("http://10.0.0.1/", "gopher://hooks.example/", ""):
        response = await gateway.http.post(GENERATIONS, json=body | {"async": True, "webhook_url": url})
        check_error(response, 400, param="webhook_url")
