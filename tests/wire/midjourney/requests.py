"""Requests of Midjourney tasks to a gateway in front of scripted models."""

import asyncio
import base64
import contextlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from PIL import Image

from gateway.dialects.midjourney.errors import SubmitResult
from gateway.dialects.midjourney.view import MidjourneyTask
from tests.fakes.scripted_model import DrawImages, Fail, FilmVideo, Say, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.conformance import validate_exactly

KEYS: dict[str, Any] = {"api_keys": ["sk-a", "sk-b"]}
KEY, OTHER_KEY = {"mj-api-secret": "sk-a"}, {"Authorization": "Bearer sk-b"}
ENDED = ("SUCCESS", "FAILURE", "CANCEL")
_SEEING = (
    "{% for m in messages %}{% for part in m.content %}"
    "{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}{% endfor %}"
)
_LOGPROBS = json.dumps([{"5": {"logprob": -0.5, "rank": 1, "decoded_token": "a", "bytes": [97]}}])
PAINTER = ScriptedModel("painter", (DrawImages(4),), is_image_model=True)
MODELS = [
    PAINTER,
    ScriptedModel("slow", (DrawImages(400, pause=0.05),), is_image_model=True),
    ScriptedModel("tired", (Fail("[engine_failed] The engine stopped."),), is_image_model=True),
    ScriptedModel("film", (FilmVideo(2),), is_video_model=True),
    ScriptedModel("scored", (Say("a", logprobs=_LOGPROBS), Say("a", "stop", logprobs=_LOGPROBS)), num_input_tokens=1),
    ScriptedModel(
        "sighted",
        (Say("A red circle.", "stop"),),
        parameters={"modalities": '["text", "image"]', "chat_template": _SEEING},
    ),
]


@contextlib.asynccontextmanager
async def run_drawing(
    state: Path, models: list[ScriptedModel] | None = None, **settings: Any
) -> AsyncIterator[tuple[FakeTriton, RunningGateway]]:
    """Run the models, and a gateway with two keys."""
    triton = await FakeTriton(MODELS if models is None else models).start()
    options = {**KEYS, "model_aliases": {"midjourney": "painter", "niji-journey": "slow"}, **settings}
    async with run_gateway(triton.url, state=state, **options) as running:
        yield triton, running
    await triton.stop()


async def post(gateway: RunningGateway, path: str, body: Any, headers: dict[str, str] = KEY) -> dict[str, Any]:
    """Return the result of a submission. The first task creates the database, which may take long."""
    async with asyncio.timeout(90):
        while True:
            response = await gateway.http.post(path, json=body, headers=headers)
            if response.status_code != 503:
                break
    assert response.headers["content-type"] == "application/json"
    validate_exactly(SubmitResult, response.content)
    return {**response.json(), "status": response.status_code}


async def submitted(gateway: RunningGateway, path: str, headers: dict[str, str] = KEY, **body: Any) -> str:
    """Return the id of a new task."""
    result = await post(gateway, f"/mj/submit/{path}", body, headers)
    assert (result["code"], result["status"]) == (1, 200), result
    assert isinstance(result["result"], str)
    return result["result"]


async def fetch(gateway: RunningGateway, id: str, headers: dict[str, str] = KEY) -> dict[str, Any]:
    response = await gateway.http.get(f"/mj/task/{id}/fetch", headers=headers)
    assert response.status_code == 200, response.text
    validate_exactly(MidjourneyTask, response.content)
    return response.json()


async def finished(gateway: RunningGateway, id: str, status: str = "SUCCESS") -> dict[str, Any]:
    """Return a task once it has ended, with this status."""
    async with asyncio.timeout(60):
        while True:
            task = await fetch(gateway, id)
            if task["status"] in ENDED:
                assert task["status"] == status, task
                return task
            await asyncio.sleep(0.05)


async def drawn(gateway: RunningGateway, **body: Any) -> dict[str, Any]:
    """Return a finished grid."""
    return await finished(gateway, await submitted(gateway, "imagine", **{"prompt": "a red circle", **body}))


async def picture(gateway: RunningGateway, url: str) -> Image.Image:
    """Return the picture at a URL that a task has. No key is sent."""
    response = await gateway.http.get(url)
    assert response.status_code == 200, response.text
    return Image.open(io.BytesIO(response.content))


def button(task: dict[str, Any], label: str) -> str:
    """Return the `customId` of the button with this label or emoji."""
    return next(b["customId"] for b in task["buttons"] if label in (b["label"], b["emoji"]))


def data_url(colour: str = "red", size: tuple[int, int] = (64, 64)) -> str:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
