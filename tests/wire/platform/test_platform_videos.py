"""Videos of the platform dialect: the document's examples, states of tasks, files, remixes."""

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.dialects.platform import response_models
from tests.fakes.scripted_model import DrawImages, Fail, FilmVideo, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.fakes.video_model import video_file
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.conformance import validate_exactly
from tests.wire.openai.image_requests import encoded_image
from tests.wire.openai.text_requests import check_error
from tests.wire.platform.chat_requests import DOCUMENT_HEADERS, MODEL

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH, ONE = "/tritonic/v1/videos", "/one/v1/videos"
KEY, OTHER_KEY = {"Authorization": "Bearer sk-a"}, {"Authorization": "Bearer sk-b"}
PROMPT = "<视频描述>"
MODELS = [
    ScriptedModel("film", (FilmVideo(2),), is_video_model=True),
    ScriptedModel("film-slow", (FilmVideo(400, pause=0.05),), is_video_model=True),
    ScriptedModel("film-broken", (Fail("[engine_failed] The engine stopped."),), is_video_model=True),
    ScriptedModel("shapes", (DrawImages(2),), is_image_model=True),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def filming() -> AsyncIterator[FakeTriton]:
    triton = await FakeTriton(MODELS).start()
    yield triton
    await triton.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(filming: FakeTriton, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    """A gateway with the document's placeholder as an alias of a model, and a platform with keys and fewer models."""
    settings: dict[str, Any] = {
        "state": tmp_path_factory.mktemp("state"),
        "model_aliases": {MODEL: "film"},
        "platforms": {"tritonic": {}, "one": {"keys": ["sk-a", "sk-b"], "models": ["film", "film-slow"]}},
        "webhook_allowed_hosts": ["127.0.0.1"],
    }
    async with run_gateway(filming.url, **settings) as running:
        yield running


async def post(gateway: RunningGateway, path: str = PATH, **options: Any) -> httpx.Response:
    """Send a request. The first task creates the database; on a busy machine, that takes longer than requests wait."""
    async with asyncio.timeout(90):
        while True:
            response = await gateway.http.post(path, **options)
            if response.status_code != 503:
                return response


def task_of(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    validate_exactly(response_models.VideoTask, response.content)
    task: dict[str, Any] = response.json()
    return task


async def create(gateway: RunningGateway, path: str = PATH, **fields: Any) -> dict[str, Any]:
    task = task_of(await post(gateway, path, json={"prompt": PROMPT, "model": "film", **fields}))
    assert set(task) == {"id", "object", "model", "status", "created_at"} and task["object"] == "video"
    return task


async def finished(gateway: RunningGateway, task: dict[str, Any], path: str = PATH, **headers: str) -> dict[str, Any]:
    """Return the task with its details once it has ended."""
    async with asyncio.timeout(60):
        while True:
            response = await gateway.http.get(f"{path}/{task['id']}", params={"detail": "true"}, headers=headers)
            found = task_of(response)
            if found["status"] not in ("queued", "in_progress"):
                return found
            assert "openai-poll-after-ms" in response.headers
            await asyncio.sleep(0.05)


async def test_a_request_as_json(gateway: RunningGateway, filming: FakeTriton) -> None:
    picture = "data:image/png;base64," + base64.b64encode(encoded_image(size=(80, 80))).decode()
    body = json.dumps({"prompt": PROMPT, "model": MODEL, "input_reference": picture}, ensure_ascii=False)
    task = task_of(await post(gateway, content=body, headers=DOCUMENT_HEADERS))
    assert task["model"] == MODEL and task["status"] in ("queued", "in_progress")
    done = await finished(gateway, task)
    call = filming.calls[-1]
    assert call.prompt == PROMPT and len(call.tensors["image"]) == 1
    assert done["status"] == "completed" and done["detail"]["error"] is None
    assert set(done["detail"]["request"]) == {"prompt", "seconds", "width", "height", "fps"}
    (made,) = done["detail"]["data"]
    assert (made["width"], made["height"], made["num_frames"], made["fps"]) == (64, 64, 17, 8)
    assert made["seed"] == call.tensors["seed"][0]
    assert (await gateway.http.get(made["url"])).headers["content-type"] == "video/mp4"
    plain = task_of(await gateway.http.get(f"{PATH}/{task['id']}"))
    assert "detail" not in plain and plain["status"] == "completed"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_a_form_as_in_the_document(gateway: RunningGateway, filming: FakeTriton, tmp_path: Path) -> None:
    file = tmp_path / "example1.png"
    file.write_bytes(encoded_image(size=(40, 40)))
    fields = [f"input_reference[]=@{file}", f'prompt="{PROMPT}"', f'model="{MODEL}"']
    command = ["curl", "-sS", "-X", "POST", gateway.url + PATH, *(part for field in fields for part in ("-F", field))]
    curl = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await curl.communicate()
    validate_exactly(response_models.VideoTask, output)
    assert (await finished(gateway, json.loads(output)))["status"] == "completed"
    assert len(filming.calls[-1].tensors["image"]) == 1


async def test_several_references_are_refused(gateway: RunningGateway) -> None:
    files = [("input_reference[]", (f"{i}.png", encoded_image(size=(40, 40)))) for i in range(2)]
    response = await post(gateway, data={"prompt": PROMPT, "model": "film"}, files=files)
    assert "one picture or video, not 2" in check_error(response, 400, param="input_reference")


async def test_a_download(gateway: RunningGateway) -> None:
    done = await finished(gateway, await create(gateway, seconds=1, seed=3))
    content = f"{PATH}/{done['id']}/content"
    whole = await gateway.http.get(content)
    assert (whole.status_code, whole.headers["content-type"]) == (200, "video/mp4")
    assert whole.content[4:8] == b"ftyp"
    part = await gateway.http.get(content, headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp")
    head = await gateway.http.head(content)
    assert (head.content, head.headers["content-length"]) == (b"", str(len(whole.content)))
    thumbnail = await gateway.http.get(content, params={"variant": "thumbnail"})
    assert thumbnail.headers["content-type"] == "image/webp"
    check_error(await gateway.http.get(content, params={"variant": "sound"}), 400, param="variant")


async def test_a_remix(gateway: RunningGateway, filming: FakeTriton) -> None:
    source = await finished(gateway, await create(gateway, seconds=1, seed=3, size="96x64"))
    remixed = f"{PATH}/{source['id']}/remix"
    task = task_of(await post(gateway, remixed, json={"prompt": "蓝色", "model": "film"}))
    done = await finished(gateway, task)
    assert (done["status"], done["detail"]["request"]["remixed_from"]) == ("completed", source["id"])
    assert len(filming.calls[-1].tensors["frames"]) == 8 and filming.calls[-1].prompt == "蓝色"
    form = await post(gateway, remixed, data={"prompt": "蓝色", "model": "film"}, files={"unknown": b""})
    assert (await finished(gateway, task_of(form)))["status"] == "completed"
    check_error(await post(gateway, remixed, json={"prompt": "蓝色"}), 400, param="model")
    body = {"prompt": "蓝色", "model": "film", "input_reference": "https://example.com/a.png"}
    check_error(await post(gateway, remixed, json=body), 400, param="input_reference")


async def test_a_video_as_reference(gateway: RunningGateway, filming: FakeTriton) -> None:
    files = {"input_reference": ("a.mp4", video_file((64, 64), 9, 8), "video/mp4")}
    response = await post(gateway, data={"prompt": PROMPT, "model": "film", "strength": "0.5"}, files=files)
    assert (await finished(gateway, task_of(response)))["status"] == "completed"
    assert len(filming.calls[-1].tensors["frames"]) == 9 and filming.calls[-1].tensors["strength"] == [0.5]


async def test_failed_and_cancelled_tasks(gateway: RunningGateway, filming: FakeTriton) -> None:
    failed = await finished(gateway, await create(gateway, model="film-broken"))
    assert (failed["status"], failed["detail"]["error"]["code"]) == ("failed", "model_failed")
    check_error(await gateway.http.get(f"{PATH}/{failed['id']}/content"), 400, code="not_ready")
    slow = await create(gateway, model="film-slow")
    async with asyncio.timeout(20):
        while not (await gateway.http.get(f"{PATH}/{slow['id']}?detail=true")).json()["detail"]["progress"]:
            await asyncio.sleep(0.05)
    check_error(await gateway.http.get(f"{PATH}/{slow['id']}/content"), 400, code="not_ready")
    cancelled = task_of(await gateway.http.delete(f"{PATH}/{slow['id']}"))
    assert cancelled["status"] == "cancelled" and (await finished(gateway, slow))["status"] == "cancelled"
    await filming.cancelled_call("film-slow")
    remix = await post(gateway, f"{PATH}/{slow['id']}/remix", json={"prompt": PROMPT, "model": "film"})
    check_error(remix, 400, code="not_ready")


async def test_tasks_belong_to_a_key_and_a_platform(gateway: RunningGateway) -> None:
    made = task_of(await post(gateway, ONE, json={"prompt": PROMPT, "model": "film"}, headers=KEY))
    await finished(gateway, made, ONE, **KEY)
    for path, headers in ((ONE, OTHER_KEY), (PATH, KEY), ("/v1/videos", KEY)):
        for url in (f"{path}/{made['id']}", f"{path}/{made['id']}/content"):
            check_error(await gateway.http.get(url, headers=headers), 404)
    check_error(await gateway.http.get(f"{ONE}/{made['id']}"), 401, "authentication_error")
    body = {"prompt": PROMPT, "model": "film-broken"}
    check_error(await post(gateway, ONE, json=body, headers=KEY), 404, param="model")
    # Routes of images show no videos.
    check_error(await gateway.http.get(f"/one/v1/images/{made['id']}", headers=KEY), 404)


async def test_tasks_are_listed(gateway: RunningGateway) -> None:
    headers = OTHER_KEY
    ids = []
    for _ in range(3):
        body = {"prompt": PROMPT, "model": "film-slow"}
        ids.append(task_of(await post(gateway, ONE, json=body, headers=headers))["id"])
    await gateway.http.delete(f"{ONE}/{ids[1]}", headers=headers)
    first = await gateway.http.get(ONE, params={"limit": 2}, headers=headers)
    validate_exactly(response_models.VideoTaskList, first.content)
    assert [task["id"] for task in first.json()["data"]] == ids[:0:-1] and first.json()["has_more"]
    rest = await gateway.http.get(ONE, params={"after": first.json()["last_id"]}, headers=headers)
    assert [task["id"] for task in rest.json()["data"]] == ids[:1]
    cancelled = await gateway.http.get(ONE, params={"status": "cancelled"}, headers=headers)
    assert [task["id"] for task in cancelled.json()["data"]] == ids[1:2]
    for id in ids:
        await gateway.http.delete(f"{ONE}/{id}", headers=headers)


async def test_repeated_requests_share_a_task_and_a_webhook(gateway: RunningGateway) -> None:
    receiver = await WebhookReceiver().start()
    headers = {"Idempotency-Key": "the same"}
    body = {"prompt": PROMPT, "model": "film", "webhook_url": receiver.url()}
    first, second = [task_of(await post(gateway, json=body, headers=headers)) for _ in range(2)]
    assert first["id"] == second["id"]
    other = await post(gateway, json={**body, "prompt": "another"}, headers=headers)
    check_error(other, 400, param="idempotency_key")
    (call,) = await receiver.until(1)
    await asyncio.sleep(1.5)
    await receiver.stop()
    assert len(receiver.calls) == 1
    assert (call.event["type"], call.event["data"]) == ("video.completed", {"id": first["id"]})
    check_error(await post(gateway, json={**body, "webhook_url": "http://127.0.0.2/"}), 400, param="webhook_url")
