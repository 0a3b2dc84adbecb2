"""Transcriptions of the platform dialect: at once, streamed, and as tasks."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.dialects.openai.wire import transcription_models
from gateway.dialects.platform import response_models
from tests.fakes.scripted_model import DrawImages, Fail, Listen, ScriptedModel
from tests.fakes.sound_files import sound_file
from tests.fakes.triton import FakeTriton
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.conformance import validate_exactly
from tests.wire.openai.text_requests import check_error, events

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH, TASKS = "/one/v1/audio/transcriptions", "/one/v1/audio/tasks"
KEY, OTHER_KEY = {"Authorization": "Bearer sk-a"}, {"Authorization": "Bearer sk-b"}
WAV = sound_file()
MODELS = [
    ScriptedModel("ear", (Listen(),), is_transcription_model=True),
    ScriptedModel("ear-slow", (Listen(pause=20),), is_transcription_model=True),
    ScriptedModel("ear-broken", (Fail("[engine_failed] The engine stopped."),), is_transcription_model=True),
    ScriptedModel("shapes", (DrawImages(2),), is_image_model=True),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    triton = await FakeTriton(MODELS).start()
    platforms = {"one": {"keys": ["sk-a", "sk-b"]}}
    state: Path = tmp_path_factory.mktemp("state")
    async with run_gateway(
        triton.url, platforms=platforms, state=state, webhook_allowed_hosts=["127.0.0.1"]
    ) as running:
        yield running
    await triton.stop()


async def post(gateway: RunningGateway, fields: dict[str, Any], path: str = PATH, file: bytes = WAV) -> httpx.Response:
    """Send a form. The first task creates the database; on a busy machine, that takes longer than requests wait."""
    async with asyncio.timeout(90):
        while True:
            files = {"file": ("a.wav", file)}
            response = await gateway.http.post(path, data={"model": "ear", **fields}, files=files, headers=KEY)
            if response.status_code != 503:
                return response


async def finished(gateway: RunningGateway, response: httpx.Response) -> Any:
    """Return the task once it has ended."""
    assert response.status_code == 200, response.text
    validate_exactly(response_models.TranscriptionTask, response.content)
    async with asyncio.timeout(60):
        while True:
            found = await gateway.http.get(f"{TASKS}/{response.json()['id']}?detail=true", headers=KEY)
            validate_exactly(response_models.TranscriptionTask, found.content)
            if found.json()["status"] not in ("queued", "in_progress"):
                return found.json()
            await asyncio.sleep(0.05)


async def test_answers_have_the_fields_of_openai_alone(gateway: RunningGateway) -> None:
    response = await post(gateway, {})
    validate_exactly(transcription_models.Transcription, response.content)
    assert response.json()["text"] == "u12 u20"
    streamed = await post(gateway, {"stream": "true"})
    assert [event["type"] for event in events(streamed)[:-1]][-1] == "transcript.text.done"
    assert (await post(gateway, {"response_format": "srt"}, "/one/v1/audio/translations")).text.startswith("1\n")


@pytest.mark.parametrize(
    ("output_format", "content_type", "start"),
    [
        ("verbose_json", "application/json", b'{"task":"transcribe","language":"german"'),
        ("vtt", "text/vtt; charset=utf-8", b"WEBVTT\n\n00:00:00.500"),
        ("text", "text/plain; charset=utf-8", b"u12 u20"),
    ],
)
async def test_a_task_writes_a_file(
    gateway: RunningGateway, output_format: str, content_type: str, start: bytes
) -> None:
    fields = {"async": "true", "response_format": output_format, "language": "de", "chunking_strategy": "auto"}
    task = await finished(gateway, await post(gateway, fields))
    assert (task["status"], task["object"], task["model"]) == ("completed", "transcription", "ear"), task
    detail = task["detail"]
    assert detail["request"]["response_format"] == output_format and detail["request"]["language"] == "de"
    (output,) = detail["data"]
    stored = await gateway.http.get(output["url"])
    assert output["content_type"] == stored.headers["content-type"] == content_type
    assert stored.content.startswith(start)


async def test_a_translation_is_a_task_as_well(gateway: RunningGateway) -> None:
    response = await post(gateway, {"async": "1"}, "/one/v1/audio/translations?async=true")
    check_error(response, 400, param="async")
    task = await finished(gateway, await post(gateway, {}, "/one/v1/audio/translations?async=true"))
    assert (await gateway.http.get(task["detail"]["data"][0]["url"])).json()["text"] == "t12 t20"


async def test_tasks_of_each_kind_have_routes_of_their_own(gateway: RunningGateway) -> None:
    speech = await finished(gateway, await post(gateway, {"async": "true"}))
    body = {"model": "shapes", "prompt": "a circle", "async": True}
    image = (await gateway.http.post("/one/v1/images/generations", json=body, headers=KEY)).json()
    listed = await gateway.http.get(TASKS, headers=KEY)
    validate_exactly(response_models.TranscriptionTaskList, listed.content)
    assert speech["id"] in {task["id"] for task in listed.json()["data"]}
    images = (await gateway.http.get("/one/v1/images", headers=KEY)).json()["data"]
    assert [task["id"] for task in images] == [image["id"]]
    for path in (f"/one/v1/images/{speech['id']}", f"{TASKS}/{image['id']}"):
        for send in (gateway.http.get, gateway.http.delete):
            check_error(await send(path, headers=KEY), 404, code="task_not_found")
    check_error(await gateway.http.get(f"{TASKS}/{speech['id']}", headers=OTHER_KEY), 404, code="task_not_found")


async def test_a_task_that_fails_or_is_cancelled(gateway: RunningGateway) -> None:
    failed = await finished(gateway, await post(gateway, {"async": "true", "model": "ear-broken"}))
    assert failed["status"] == "failed" and failed["detail"]["error"]["code"] == "model_failed"
    # What is wrong with the sound is known when it is decoded.
    damaged = await finished(gateway, await post(gateway, {"async": "true"}, file=b"RIFF\x10\0\0\0WAVEjunk\xff\xff"))
    error = damaged["detail"]["error"]
    assert (damaged["status"], error["code"], error["param"]) == ("failed", "invalid_value", "file")
    running = (await post(gateway, {"async": "true", "model": "ear-slow"})).json()
    cancelled = await gateway.http.delete(f"{TASKS}/{running['id']}", headers=KEY)
    assert cancelled.json()["status"] == "cancelled"


async def test_requests_that_are_refused(gateway: RunningGateway) -> None:
    check_error(await post(gateway, {"async": "true", "stream": "true"}), 400, param="stream")
    check_error(await post(gateway, {"async": "true", "language": "xx"}), 400, param="language")
    check_error(await post(gateway, {"async": "true"}, file=b"Hello"), 400, param="file")
    check_error(await post(gateway, {"model": "shapes"}), 400, param="model")
    files = {"file": ("a.wav", WAV)}
    check_error(await gateway.http.post(PATH, files=files, headers=KEY), 400, param="model")
    check_error(await gateway.http.post(PATH, data={"model": "ear"}, files=files), 401, "authentication_error")


async def test_webhooks_of_transcriptions(gateway: RunningGateway) -> None:
    receiver = await WebhookReceiver().start()
    response = await post(gateway, {"async": "true", "model": "ear-broken", "webhook_url": receiver.url()})
    task = await finished(gateway, response)
    (call,) = await receiver.until(1)
    await receiver.stop()
    assert (call.event["type"], call.event["data"]["id"]) == ("transcription.failed", task["id"])
    check_error(await post(gateway, {"webhook_url": receiver.url()}), 400, param="webhook_url")
